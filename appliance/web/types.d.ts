// The shapes that the API answers with, as far as the page looks at them. For the type checker alone; never served.

export interface Problem { path: string; problem: string; remedy?: string; got?: unknown }
export interface Session { user?: string; role: "admin" | "installer" | "operator" | "viewer"; mountpoints?: string[]; csrf?: string; local?: boolean }
export interface Start { claimed: boolean; session: Session | null }

export type State = "starting" | "running" | "waiting" | "retrying" | "failed" | "ended" | "stopping" | "stuck";
export interface Activity { state: State; since: string; attempts: number; cause?: string; next_attempt?: string }
export interface Track { kind: string; codec: string; width: number; height: number; frame_rate: number; sample_rate: number; channels: number }
export interface Stream { publisher: string; since: string; tracks: Track[]; bitrate: number; newest_unit_age: string }
export interface Picture { verdict: string; since: string; cause?: string }
export interface Push extends Activity { url: string; enabled: boolean; rendition?: string; counters: { bytes: number; dropped_units: number }; kmp?: { unacked_frames: number; lost_frames: number; error?: string } }
export interface Mountpoint {
  template?: string;
  source: { kind: string; from?: string; described?: string; activity?: Activity; ladder?: { step?: string; advice?: string } };
  stream?: Stream;
  picture?: Picture;
  players: number;
  pushes: Record<string, Push>;
  counters: { units: number; bytes: number; dropped_units: number };
}
export interface Status {
  version: string;
  at: string;
  started: string;
  config: {
    revision: number;
    phase: "confirmed" | "applying" | "awaiting_confirm" | "rolling_back";
    changed_by: string;
    changed_at: string;
    pending?: { by: string; deadline: string; unhealthy: string[] };
    rolled_back?: { at: string; by: string; causes: Problem[] };
    needs_restart: boolean;
  };
  listeners: Record<string, Activity & { addresses: string[]; connections: number }>;
  mountpoints: Record<string, Mountpoint>;
  capacity: { shed?: unknown[] };
  notices: { code: string; text: string }[];
}

export interface Camera {
  id: string;
  found_by: { onvif: boolean; mdns: boolean; named: boolean; v4l2: boolean };
  address?: string;
  device?: string;
  names: string[];
  make?: string;
  model?: string;
  firmware?: string;
  serial?: string;
  login: "none" | "accepted" | "not_needed" | "refused";
  main?: { url: string; checked: boolean; streams: { kind: string; codec?: string }[] };
  sub?: { url: string };
  profiles: { profile: string; video?: { codec?: string; width?: number; height?: number; fps?: number } }[];
  snapshot_url?: string;
  time_offset?: string;
  missing: string[];
  gone?: boolean;
}
export interface Discovery { search: { searching: boolean; interfaces: { name: string; address: string }[]; problems: string[] }; cameras: Camera[] }

export interface NetworkLink { carrier?: boolean; mac?: string; speed_mbit?: number; wifi: boolean; addresses: string[] }
export interface Network {
  hostname: string;
  links: Record<string, NetworkLink>;
  routes: { link: string; gateway?: string; metric: number }[];
  dns: string[];
  announced: string[];
  config: { state: "untouched" | "applied" | "failed"; cause?: string };
}
export interface LinkSetting { dhcp: boolean; addresses: string[]; gateway?: string; dns: string[]; wifi?: { ssid: string; psk?: unknown; hidden: boolean } }

export interface LedgerEntry { mountpoint: string; upstream: string; track?: string; state: string; from: string; to: string; frames: number; cause?: string }
export interface User { name: string; role: Session["role"]; mountpoints?: string[] }
export interface AuditEntry { id: number; at: string; who: string; from: string; what: string; result: string; [more: string]: unknown }

export interface TrialStep { step: string; state: "waiting" | "running" | "passed" | "failed" | "skipped"; text: string; millis?: number }
export interface Trial { id: string; url: string; state: "running" | "passed" | "failed"; steps: TrialStep[]; bits_per_second?: number; segments?: number; resent_segments?: number }

export type Level = "good" | "wait" | "bad" | "off";
export interface Health { level: Level; word: string; what?: string; since?: string; advice?: string; until?: string }

export interface Happening { id: number; at: string; event: string; mountpoint?: string; upstream?: string; text: string; lost_seconds?: number; cause?: string }
export interface Check { check: string; verdict: "passed" | "failed" | "not_measured"; found: string; remedy?: string }
export interface Certificate {
  gateway: string;
  version: string;
  config_revision: number;
  by: string;
  begun: string;
  ended: string;
  soak_seconds: number;
  verdict: Check["verdict"];
  cameras: { mountpoint: string; kind: string; described?: string; checks: Check[] }[];
  upstreams: { mountpoint: string; upstream: string; url: string; checks: Check[] }[];
  uplink: Check[];
}
export interface Survey { id: string; phase: "line" | "soak" | "done"; begun: string; ends: string; certificate?: Certificate }

export type UpdatePhase = "installing" | "installed" | "trial" | "good" | "failed" | "refused";
export interface FirmwareUpload { size?: number; received: number; complete: boolean; label: string; by: string }
export interface Update {
  available: boolean;
  cause?: string;
  firmware?: { compatible: string; version?: string; booted: string; operation: string; percent: number; slots: { name: string; booted: boolean; state: string; version?: string }[] };
  upload?: FirmwareUpload;
  last?: { version: string; from: string; phase: UpdatePhase; reason?: string; by: string; at: string };
  missing: string[];
  fetch_failed?: string;
}
