// The service worker, alone or imported by another one: classic scripts know no modules.
import { serve, type WorkerScope } from "./worker.js";

serve(self as unknown as WorkerScope);
