/**
 * What a page and its service worker both have to know of a push registration. It is in IndexedDB,
 * under the scope of the worker: a worker has no other memory, and applications empty their caches.
 */
export interface PushRecord {
  /** The node. */
  readonly url: string;
  readonly user: string;
  readonly device: string;
  /** The endpoint that the server was told, the server's key it was made with, and when. */
  readonly endpoint: string;
  readonly key: string;
  readonly at: number;
  /** Whether it is told again without being asked. */
  readonly renew: boolean;
  /** What is shown in place of a text that cannot be had. */
  readonly title: string;
  readonly icon?: string | undefined;
  readonly badge?: string | undefined;
}

const STORE = "push";

function asked<T>(
  mode: IDBTransactionMode,
  work: (store: IDBObjectStore) => IDBRequest<T>,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open("pushsvc", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore(STORE);
    opening.onerror = () => reject(opening.error);
    opening.onsuccess = () => {
      const database = opening.result;
      const transaction = database.transaction(STORE, mode);
      const request = work(transaction.objectStore(STORE));
      const end = (done: () => void) => () => {
        database.close();
        done();
      };
      transaction.oncomplete = end(() => resolve(request.result));
      transaction.onabort = end(() => reject(transaction.error));
    };
  });
}

/** The record of a worker's scope, if there is one and it can be read. */
export function recordOf(scope: string): Promise<PushRecord | undefined> {
  return asked("readonly", (store) => store.get(scope)).catch(() => undefined);
}

export async function keep(scope: string, record: PushRecord): Promise<void> {
  await asked("readwrite", (store) => store.put(record, scope));
}

export async function forget(scope: string): Promise<void> {
  await asked("readwrite", (store) => store.delete(scope));
}

/** Sets the number at the app's icon, where there is one, and notes that it was set. */
export async function count(scope: string, unread: number): Promise<void> {
  try {
    await navigator.setAppBadge?.(unread);
    await asked("readwrite", (store) => store.put(unread, badgeOf(scope)));
  } catch {
    // It is an ornament.
  }
}

/** The number that was set last; undefined where none ever was. */
export function counted(scope: string): Promise<number | undefined> {
  return asked("readonly", (store) => store.get(badgeOf(scope))).catch(() => undefined);
}

const badgeOf = (scope: string) => `${scope} badge`;
