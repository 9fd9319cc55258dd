/** The part of a level database (text keys, text values) that records of the daemon are kept with. */
export interface TextDb {
  get(key: string): Promise<string | undefined>;
  put(key: string, value: string): Promise<void>;
  del(key: string): Promise<void>;
  iterator(): AsyncIterable<[string, string]>;
}
