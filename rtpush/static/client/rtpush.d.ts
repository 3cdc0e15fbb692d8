/** The rtpush client for browsers and Node 20 or newer. All times are seconds. */

export type TransportName = "websocket" | "sse" | "longpoll" | "shortpoll";
export type State = "connecting" | "open" | "closing" | "closed";

/** The delay before an attempt is `min(base · 2^attempt, max) + random(0, jitter)`. */
export interface Backoff {
  base: number;
  max: number;
  jitter: number;
}

/** A token, or what is called for one whenever another one is needed. */
export type TokenSource = string | (() => string | Promise<string>);

export interface ClientOptions {
  /** The transports that may be used. Default: all but shortpoll; with `direction: "rare"` all. */
  transports?: readonly TransportName[];
  /** What the connection is for; the server ranks the transports by it. Default: duplex. */
  direction?: "duplex" | "push" | "rare";
  /** How long the server's first event may take to come through a transport. Default: 5. */
  openTimeout?: number;
  /** How long to stay on a lesser transport before a better one is tried; grows after failures; 0: never. Default: 60. */
  climbAfter?: number;
  /** The longest time between two tries of a better transport. Default: 3600. */
  climbMax?: number;
  /** How often to ask for a sign of life. Default: what the server says. */
  heartbeat?: number;
  /** Default: what the server says. */
  backoff?: Backoff;
  /** Remembers for some hours which transport worked. Default: `localStorage` of a page; null: remember nothing. */
  storage?: Pick<Storage, "getItem" | "setItem"> | null;
  /** What others see of this client in a channel's presence: any JSON. */
  info?: unknown;
  /**
   * What it says to the application (hooks) when it connects over WebSocket: any JSON. The other transports have no room
   * for it: there `info` and `headers` say something.
   */
  data?: unknown;
  /**
   * What this client shows of who it is; or what is called for it, whenever another one is needed: before it ends, and
   * when the server says that it has ended.
   */
  token?: TokenSource;
  /** Headers of all HTTP requests; a WebSocket of a browser cannot carry any. */
  headers?: Record<string, string>;
  /** Default: the global one. */
  fetch?: typeof globalThis.fetch;
  /** The constructor for WebSockets. Default: the global one; without any, websocket is left out. */
  WebSocket?: (new (url: string, protocols: string[]) => any) | null;
  /** A number at least 0 and below 1. Default: Math.random. */
  random?: () => number;
}

export interface StateEvent {
  state: State;
  previous: State;
  reason: string;
}

export interface TransportEvent {
  /** The transport that carries messages now; undefined: none does. */
  transport: TransportName | undefined;
  /** The last one that did. */
  previous: TransportName | undefined;
  reason: string;
}

export interface ConnectedEvent {
  transport: TransportName;
  /** The server's id of this connection, where the transport tells it. */
  connection?: string;
  /** What the application says to this client (hooks), if it does: any JSON. */
  data?: any;
}

export interface AttemptEvent {
  transport: TransportName;
  /** How many attempts have failed since the last success. */
  attempt: number;
  /** The seconds until it is made; absent when it is made now. */
  delay?: number;
}

export interface DisconnectEvent {
  code: number;
  reason: string;
  /** Whether the client comes back. */
  reconnect: boolean;
  /** The seconds after which the server asked it to. */
  after?: number;
}

export interface ClientEvents {
  state: StateEvent;
  transport: TransportEvent;
  attempt: AttemptEvent;
  /**
   * The server has let this client in: at the beginning and after each reconnection and change of transport; but for
   * WebSocket also when other channels are followed. Polls that only go on have no `data`.
   */
  connected: ConnectedEvent;
  /** Something went wrong, and the client goes on; or, just before the state `closed`, it does not. */
  error: Error;
  /** The server ended the connection. */
  disconnect: DisconnectEvent;
}

export interface Message {
  channel: string;
  /** A Uint8Array if the payload is binary; any JSON if not. */
  data: any;
  event: string | undefined;
  /** Undefined, as `offset` is, if the message was published with `history: false`. */
  epoch: string | undefined;
  offset: number | undefined;
}

export interface SubscribedEvent {
  channel: string;
  /** Where delivery begins: the next message is the one after this. */
  epoch: string;
  offset: number;
  /** False if the server could not go on from the position that it was given; a `gap` follows. */
  recovered: boolean;
  /** What the application says about the channel (hooks), if it does: any JSON. Polls that only go on have none. */
  data?: any;
}

export interface GapEvent {
  channel: string;
  /** Where the stream goes on. */
  epoch: string;
  offset: number;
  reason: "epoch_changed" | "history_lost" | "position_ahead" | "skipped";
}

export interface UnsubscribedEvent {
  channel: string;
  /** The server's; undefined if the client unsubscribed. */
  code?: number;
  reason: string;
}

/** Another connection in the channel. */
export interface PresenceEntry {
  connection: string;
  transport: string;
  /** Whose it is, as its token says. */
  user?: string;
  info?: any;
}

export interface SubscriptionEvents {
  message: Message;
  gap: GapEvent;
  /** Delivery begins; again after each reconnection and change of transport. */
  subscribed: SubscribedEvent;
  unsubscribed: UnsubscribedEvent;
  /** One that is not `temporary` ends the subscription. */
  error: RtpushError;
  join: PresenceEntry & { channel: string };
  leave: PresenceEntry & { channel: string };
}

export interface SubscribeOptions {
  /** Begin after this position: `epoch:offset`, or a Position. */
  cursor?: string | Position;
  /** Without a cursor: begin at the oldest message kept, not at now. */
  since?: "earliest" | "now";
  /**
   * A token for this channel alone (claim `channel`), shown besides that of the client, also for what is published or
   * asked there as long as it is followed. A function is asked again before it ends, and when it has ended; until it
   * gives one the channel waits, and so do the calls for it.
   */
  token?: TokenSource;
}

export interface PublishOptions {
  event?: string;
  /** Default: a new one. With the same key a message is published once. */
  idempotencyKey?: string;
  /** False for what is worthless a second later: no offset, at most once, never recovered. */
  history?: boolean;
}

export interface HistoryOptions {
  /** Read what came after this position. */
  since?: string | Position;
  limit?: number;
  /** Newest first. */
  reverse?: boolean;
}

declare class Emitter<Events> {
  /** Call a listener on each event of this name; returns a function that stops it. */
  on<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => void): () => void;
}

/** A client of one rtpush server. */
export class Client extends Emitter<ClientEvents> {
  /** @param baseUrl Where `/negotiate` is, without it: `https://host/prefix/`, or relative to the page. */
  constructor(baseUrl: string | URL, options?: ClientOptions);

  /** `closed` before it is started too. */
  readonly state: State;
  /** The transport that carries messages now. */
  readonly transport: TransportName | undefined;
  /** The server's id of this connection, where the transport tells it. */
  readonly connection: string | undefined;

  /** Where these channels are: what any other client can go on from. */
  cursor(channels: readonly string[]): string;

  /** Start. Subscribing, publishing and asking do it too. */
  connect(): void;

  /**
   * Follow a channel: from a position, from the oldest message kept, or from now. A channel is followed once: asking
   * again gives the same Subscription.
   *
   * @throws TypeError if this is not the name of a channel, or the cursor not a position.
   */
  subscribe(channel: string, options?: SubscribeOptions): Subscription;

  /**
   * Publish JSON, text or bytes; resolves to the position, which is empty with `history: false`. While there is no
   * connection it waits. After a cut it is sent again with the same idempotency key, so that it is there once.
   *
   * @throws RtpushError the server's; `timeout`, `too_many_calls` or `closed` if there was no answer.
   */
  publish(channel: string, data: any, options?: PublishOptions): Promise<{ epoch?: string; offset?: number }>;

  /** Read what a channel keeps; resolves with the newest position besides. */
  history(channel: string, options?: HistoryOptions): Promise<{ messages: Message[]; epoch: string; offset: number }>;

  /** Ask who is in a channel. */
  presence(channel: string): Promise<{ connections: PresenceEntry[] }>;

  /** End, for good. What waits for an answer is rejected. */
  close(): void;
}

/** One channel that is followed. */
export class Subscription extends Emitter<SubscriptionEvents> {
  private constructor();
  readonly channel: string;
  /** The position of the last message, or where delivery begins; undefined until the server has told it. */
  readonly position: Position | undefined;
  unsubscribe(): void;
}

/** The place of a message in its channel; as text it is what a cursor says. */
export class Position {
  constructor(epoch: string, offset: number);
  readonly epoch: string;
  readonly offset: number;
  /** Read `epoch:offset`; undefined for `-` (from now). Throws a TypeError for anything else. */
  static parse(text: string): Position | undefined;
  toString(): string;
}

/**
 * What went wrong: a row of the protocol's error table, or something of this client's, whose `code` is that of the error
 * that is behind it, if one is.
 */
export class RtpushError extends Error {
  /** If the application refuses (`name` is `permission_denied`), it may be one of its own. */
  readonly code?: number;
  /** The channel whose own token has ended or was taken back, if that is what is wrong. */
  readonly channel?: string;
  /** Whether trying again later can help. */
  readonly temporary: boolean;
  /** The HTTP status, if there was one. */
  readonly status?: number;
  /** The seconds after which the server asks to try again, if it does. */
  readonly after?: number;
}

export function backoffDelay(attempt: number, backoff: Backoff, chance: number): number;
export function comesBack(code: number): boolean;
export function makeCursor(positions: readonly (Position | undefined)[]): string;
export function judge(
  position: Position | undefined,
  message: { epoch?: string; offset?: number },
): "next" | "seen" | "hole";
export function payloadFields(data: any): { data: any } | { data_b64: string };
export function fromEnvelope(envelope: Record<string, any>): Message;
export function retryAfter(header: string | null, now: number): number | undefined;

/** Reads a text/event-stream, cut into pieces anywhere. */
export class SseParser {
  feed(piece: string): { event: string; data: string; id: string }[];
}
