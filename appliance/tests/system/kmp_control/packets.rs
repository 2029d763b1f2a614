//! KMP packets as a receiver made from the contract reads them, none of the gateway's code.

/// The first 16 bytes of each packet.
const COMMON: usize = 16;

/// One packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    /// `cnct`, `minf`, `fram`, `null`, `eost` or `ackf`.
    pub(super) kind: String,
    /// The whole header.
    pub(super) header: Vec<u8>,
    /// What follows it.
    pub(super) data: Vec<u8>,
}

/// All whole packets of `bytes`, and how many bytes they take.
pub(super) fn parse(bytes: &[u8]) -> (Vec<Packet>, usize) {
    let (mut packets, mut at) = (Vec::new(), 0);
    while let Some(common) = bytes.get(at..at + COMMON) {
        let (header_len, data_len) = (u32_at(common, 4) as usize, u32_at(common, 8) as usize);
        assert!((COMMON..=65_536).contains(&header_len) && data_len <= 16 << 20, "no KMP packet at {at}");
        let Some(whole) = bytes.get(at..at + header_len + data_len) else { break };
        let (header, data) = whole.split_at(header_len);
        let kind = String::from_utf8_lossy(&common[..4]).into_owned();
        packets.push(Packet { kind, header: header.to_vec(), data: data.to_vec() });
        at += header_len + data_len;
    }
    (packets, at)
}

impl Packet {
    /// Of a `cnct`: the id of the first frame to come.
    pub(super) fn initial_frame_id(&self) -> u64 {
        assert_eq!(self.kind, "cnct");
        u64_at(&self.header, 80)
    }

    /// Of a `cnct`: channel and track.
    pub(super) fn names(&self) -> (String, String) {
        assert_eq!(self.kind, "cnct");
        (name(&self.header[16..48]), name(&self.header[48..80]))
    }

    /// All that must be the same in every run, readable: frame ids count from `first_id`, `created` is left out.
    pub(super) fn shown(&self, first_id: u64) -> String {
        let header = &self.header;
        let lens = format!("{} {}+{}", self.kind, header.len(), self.data.len());
        let rest = match self.kind.as_str() {
            "cnct" => {
                let (channel, track) = self.names();
                let id = u64_at(header, 80).wrapping_sub(first_id) as i64;
                let (upstream, offset, flags) = (u64_at(header, 88), u32_at(header, 96), u32_at(header, 100));
                format!("{channel}/{track} from +{id} upstream {upstream} offset {offset} flags {flags}")
            }
            "fram" => {
                let (dts, flags) = (u64_at(header, 24) as i64, u32_at(header, 32));
                format!("dts {dts} flags {flags} delay {}", u32_at(header, 36) as i32)
            }
            _ => hex(&header[12..]),
        };
        format!("{lens} {rest} {}", digest(&self.data))
    }
}

/// Little-endian, as all of KMP.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// As [`u32_at`].
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn name(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Short data as it is, long data by its FNV-1a hash.
fn digest(data: &[u8]) -> String {
    if data.len() <= 64 {
        return hex(data);
    }
    let hash = data.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("#{hash:016x}")
}
