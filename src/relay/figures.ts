/** Figures of a running server, for those who watch over it. */

/** One reader. A plain flood has one for each connection, a relay one for each name. */
export interface ReaderFigures {
  /** What it is recognized by; of a plain flood the number of its connection. */
  name: string;
  connected: boolean;
  /** Bytes that the server's kernel has accepted for it since the server started. */
  acceptedBytes: number;
  /** Offset in its stream up to which everything is delivered; bytes. */
  deliveredOffset: number;
  /** What is not delivered yet, in memory and on disk; bytes. */
  lagBytes: number;
  /** The same in messages; an estimate where messages differ in length. */
  lagMessages: number;
  /** Age of the oldest message that is not delivered; 0: all are delivered; NaN: the age is not known. */
  lagSeconds: number;
  /** How often bytes were skipped that were neither in memory nor on disk. */
  gaps: number;
  /** Messages dropped by the overflow policy, by a full queue, or while it was not connected. */
  dropped: number;
  /** Messages that came again from the source and were not sent again. */
  duplicatesAvoided: number;
}

/** What is on disk of one stream. */
export interface LogFigures {
  /** Its name. */
  stream: string;
  /** Bytes on disk. */
  bytes: number;
  /** Files. */
  segments: number;
  /** Age of the oldest message on disk; 0: nothing is stored. */
  oldestSeconds: number;
}

export interface ServerFigures {
  readers: ReaderFigures[];
  /** Empty where nothing is stored, or where the store does not tell. */
  logs: LogFigures[];
  /** Messages that the server holds in memory; bytes. */
  memoryBytes: number;
  /** Free space where messages are stored; bytes. */
  diskFreeBytes?: number;
  /** Writes that made the disk safe (fsync) since the server started. */
  sync?: { count: number; seconds: number; longestSeconds: number };
  /** Absent: the source has no connection, or is not opened yet, or has ended. */
  sourceConnected?: boolean;
}
