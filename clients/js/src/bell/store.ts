/** TEMPORARY: the interface of the store until it is merged. */
export interface InboxItem {
  readonly id: string;
  readonly time: string | Date;
  readonly event?: string;
  readonly data: unknown;
  readonly read: boolean;
  readonly archived: boolean;
  readonly topic?: string;
}
export interface InboxSnapshot {
  readonly items: readonly InboxItem[];
  readonly unread: number;
  readonly state: "loading" | "ready" | "offline" | "error";
  readonly error?: Error;
  readonly more: boolean;
}
export interface InboxStore {
  snapshot(): InboxSnapshot;
  subscribe(fn: () => void): () => void;
  loadMore(): Promise<void>;
  refresh(): Promise<void>;
  read(ids: string[]): Promise<void>;
  unread(ids: string[]): Promise<void>;
  archive(ids: string[]): Promise<void>;
  readAll(): Promise<void>;
}
