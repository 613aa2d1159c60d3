/** What a connection is doing; see `Daebus.status`. */
export type Status = "connecting" | "open" | "waiting" | "paused" | "refused" | "closed";

/** Why a connection ended, or why there was none. */
export interface Ending {
  /** A close code, or the HTTP status with which the server refused; 1006 if it told neither. */
  code: number;
  /** The reason of the close, or the code of the refusal, such as `"too_many_clients"`. */
  reason: string;
  /** For people; of a refusal. */
  text?: string;
}

/** What `onstatus` is called with; `"connecting"` and `"open"` have no ending. */
export interface StatusEvent extends Partial<Ending> {
  status: Status;
  /** Milliseconds until the next attempt; of `"waiting"`. */
  retryIn?: number;
}

/**
 * The messages of an app: what each request takes and returns, and what each message brings.
 * Without one, everything is `any`.
 */
export interface Contract {
  /** By message type: the data of a request and of its answer. */
  requests?: object;
  /** By message type: the data of what is sent without asking for an answer. */
  sends?: object;
  /** By message type: the data of what the server sends. */
  messages?: object;
  /** By message type: the data of a `call()`, and of its answer. */
  calls?: object;
  /** By topic: the data of its messages. */
  topics?: object;
  /** By state: its values. */
  states?: object;
}

type Known<C, Part extends keyof Contract> = C extends { [P in Part]: infer Types }
  ? Types
  : Record<string, any>;
type Names<Types> = keyof Types & string;
type DataOf<Types, Name extends keyof Types> = Types[Name] extends { data: infer Data }
  ? Data
  : any;
type AnswerOf<Types, Name extends keyof Types> = Types[Name] extends { answer: infer Answer }
  ? Answer
  : any;

/** A message as it came. */
export interface Message<Data = any> {
  type: string;
  data?: Data;
  id?: string | number;
  topic?: string;
  offset?: number;
}

export interface Options {
  /**
   * Proves who this is; a function, which may be async, is asked once, and again when the server
   * says 401 or 4401. In Python it is `req.token`.
   */
  token?: string | null | (() => string | null | Promise<string | null>);
  /** Subprotocols to offer besides `daebus`. */
  protocols?: string[];
  /** Milliseconds of the first pause at most; it doubles with each attempt. Default 500. */
  minDelay?: number;
  /** Milliseconds of any pause at most, if the server asks for none. Default 30,000. */
  maxDelay?: number;
  /** Milliseconds for a request, and for an attempt to connect. Default 10,000. */
  timeout?: number;
  /** Milliseconds of silence after which the server is asked for a sign of life; 0 for never.
   * Default 25,000. */
  heartbeat?: number;
  /** Milliseconds that it may take. Default 10,000. */
  heartbeatTimeout?: number;
  /** Reload the page when the app is of another version than before. */
  reload?: boolean;
  /** Overrides whether to connect again; undefined leaves it as it is. */
  shouldRetry?: (ending: Ending) => boolean | undefined;
  /** The class to use in place of the global one, such as that of the package `ws`. */
  WebSocket?: new (url: string, protocols: string[]) => any;
}

export interface RequestOptions {
  /** Milliseconds, the wait for a connection included; `Infinity` for no end. */
  timeout?: number;
  /** Takes the request back; it rejects with the signal's reason, an `AbortError`. */
  signal?: AbortSignal;
  /** Called with what `req.progress` is given. */
  onProgress?: (progress: any) => void;
  /** Called with each item of a generator after the first, which is the answer. */
  onItem?: (item: any) => void;
  /** Send it again when it was sent and then cut: the handler may run twice. Default false. */
  repeat?: boolean;
}

export interface SendOptions {
  /** Keep it until a connection is open; at most 100, in order. Default false. */
  queue?: boolean;
}

/** Where a subscription is. */
export interface Position {
  epoch: string;
  offset: number;
}

/** What a topic has lost. */
export interface Gap extends Position {
  topic: string;
  /** `"slow"`, `"epoch"`, `"expired"`, `"ahead"`, `"limit"`, `"backplane"`. */
  reason: string;
  /** How many messages; null if that is unknown. */
  missed: number | null;
}

export interface TopicOptions<Data = any> {
  /** Begin so many messages back, if there is no position to go on from. */
  last?: number;
  /** Go on from there; a `position` that the page has kept. */
  since?: Position | null;
  /** `"session"` keeps the position over a reload of the page. */
  persist?: "session";
  onmessage?: (data: Data, message: Message<Data> & { topic: string; offset: number }) => void;
  /** Called when messages were lost. */
  ongap?: (gap: Gap) => void;
  /** Called when the server refuses or ends the subscription; without it that is reported. */
  onerror?: (error: DaebusError) => void;
}

/** A topic that is subscribed to, again after each cut. */
export interface Topic<Data = any> {
  readonly name: string;
  /** Where it is; null before the first answer. */
  readonly position: Position | null;
  /** Everything up to now has come, on a connection that is open. */
  readonly synced: boolean;
  onmessage?: TopicOptions<Data>["onmessage"];
  ongap?: TopicOptions<Data>["ongap"];
  onerror?: TopicOptions<Data>["onerror"];
  /** Unsubscribe. */
  close(): void;
}

export interface StateOptions<Values = Record<string, any>> {
  /** `"session"` keeps position and values over a reload of the page. */
  persist?: "session";
  /** Called with the values, and the keys that changed. */
  onchange?: (values: Readonly<Values>, keys: string[]) => void;
  /** Called when the server refuses or ends the subscription; without it that is reported. */
  onerror?: (error: DaebusError) => void;
}

/** A state that is kept current. */
export interface State<Values = Record<string, any>> {
  readonly name: string;
  readonly position: Position | null;
  /** The values are those of the server, on a connection that is open. */
  readonly synced: boolean;
  /** A new object after each change. */
  readonly values: Readonly<Values>;
  onchange?: StateOptions<Values>["onchange"];
  onerror?: StateOptions<Values>["onerror"];
  /** Unsubscribe. */
  close(): void;
}

/** Why a request failed. */
export class DaebusError extends Error {
  /**
   * @param message for people.
   * @param code for programs; thrown in a `handle` function, it goes to the server.
   */
  constructor(message: string, code?: string, more?: { sent?: boolean; data?: any });
  /** The code of the server's error; or `"timeout"`, `"disconnected"`. */
  readonly code: string | undefined;
  /** Whether the request had been sent, so that its handler may have run. */
  readonly sent: boolean | undefined;
  /** The data of the server's error, with `retry_after` for instance. */
  readonly data: any;
}

/** A connection to a daebus app, for as long as the page lives or until `close()`. */
export class Daebus<C extends Contract = {}> {
  /**
   * Begin to connect.
   *
   * @param url http, https, ws or wss, or relative to the page. Default `"/"`.
   * @throws TypeError if it is no such address.
   */
  constructor(url?: string | URL, options?: Options);

  /**
   * `"connecting"`; `"open"`; `"waiting"` for its next attempt; `"paused"` while the page is
   * hidden and there is no connection; `"refused"` for good; `"closed"` by the page.
   */
  readonly status: Status;
  /**
   * Version of the app, once it is known: with `reload` right after it opens, else with the first
   * heartbeat that is answered.
   */
  readonly version: string | undefined;
  /** Called whenever the status changes. */
  onstatus?: (event: StatusEvent) => void;

  /** Call a listener with each message of a type, `"*"` for all; returns what ends that. */
  on<T extends Names<Known<C, "messages">>>(
    type: T,
    listener: (data: Known<C, "messages">[T], message: Message<Known<C, "messages">[T]>) => void,
  ): () => void;
  on(type: "*", listener: (data: any, message: Message) => void): () => void;

  /** Answer the `call()`s of a type; throw a `DaebusError` to answer with its code. */
  handle<T extends Names<Known<C, "calls">>>(
    type: T,
    handler: (
      data: DataOf<Known<C, "calls">, T>,
      message: Message,
    ) => AnswerOf<Known<C, "calls">, T> | Promise<AnswerOf<Known<C, "calls">, T>>,
  ): () => void;

  /** Send a message; false if it was neither sent nor queued. */
  send<T extends Names<Known<C, "sends">>>(
    type: T,
    data?: Known<C, "sends">[T],
    options?: SendOptions,
  ): boolean;

  /**
   * Send a message, and return its answer.
   *
   * Rejects with a `DaebusError`: the server's, or `timeout`, or `disconnected`; or with the
   * reason of the signal.
   */
  request<T extends Names<Known<C, "requests">>>(
    type: T,
    data?: DataOf<Known<C, "requests">, T>,
    options?: RequestOptions,
  ): Promise<AnswerOf<Known<C, "requests">, T>>;

  /** Subscribe to a topic; once for each name. */
  topic<T extends Names<Known<C, "topics">>>(
    name: T,
    options?: TopicOptions<Known<C, "topics">[T]>,
  ): Topic<Known<C, "topics">[T]>;

  /** Subscribe to a state; once for each name. */
  state<T extends Names<Known<C, "states">>>(
    name: T,
    options?: StateOptions<Known<C, "states">[T]>,
  ): State<Known<C, "states">[T]>;

  /** Connect at once while it waits, or anew after it was refused or closed. */
  connect(): void;

  /** End it for good. */
  close(): void;
}
