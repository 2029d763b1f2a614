//! Who we are to applications, and who may give commands.

use crate::key::Key;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// How we show applications who we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CallAuth {
    /// Not at all.
    #[default]
    None,
    /// `Basic`.
    Basic {
        /// Without a colon.
        user: String,
        /// Its password.
        password: Key,
    },
    /// `Bearer`.
    Bearer(Key),
    /// The whole header.
    Custom(Key),
}

impl CallAuth {
    /// The value of `Authorization`.
    pub fn header(&self) -> Option<Key> {
        match self {
            CallAuth::None => None,
            CallAuth::Basic { user, password } => {
                let both = format!("{user}:{}", password.reveal());
                Some(Key::new(format!("Basic {}", STANDARD.encode(both))))
            }
            CallAuth::Bearer(token) => Some(Key::new(format!("Bearer {}", token.reveal()))),
            CallAuth::Custom(header) => Some(header.clone()),
        }
    }
}

/// Who may give commands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CommandAuth {
    /// Nobody.
    #[default]
    Closed,
    /// Who knows both.
    Basic {
        /// Without a colon.
        user: String,
        /// Its password.
        password: Key,
    },
    /// Who knows it.
    Bearer(Key),
}

impl CommandAuth {
    /// Whether this value of `Authorization` opens the commands.
    pub fn permits(&self, header: Option<&str>) -> bool {
        let Some((scheme, offered)) = header.and_then(|header| header.trim().split_once(' ')) else {
            return false;
        };
        let offered = offered.trim();
        match self {
            CommandAuth::Closed => false,
            CommandAuth::Basic { user, password } => {
                let both = Key::new(format!("{user}:{}", password.reveal()));
                let offered = STANDARD.decode(offered).ok().and_then(|bytes| String::from_utf8(bytes).ok());
                scheme.eq_ignore_ascii_case("basic") && offered.is_some_and(|offered| both.matches(&offered))
            }
            CommandAuth::Bearer(token) => scheme.eq_ignore_ascii_case("bearer") && token.matches(offered),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_header() {
        let header = |auth: CallAuth| auth.header().map(|key| key.reveal().to_owned());
        let basic = CallAuth::Basic { user: "u".into(), password: Key::new("p:w") };
        assert_eq!(header(basic).as_deref(), Some("Basic dTpwOnc="));
        assert_eq!(header(CallAuth::Bearer(Key::new("t"))).as_deref(), Some("Bearer t"));
        assert_eq!(header(CallAuth::Custom(Key::new("Sig x=1"))).as_deref(), Some("Sig x=1"));
        assert_eq!(header(CallAuth::None), None);
    }

    #[test]
    fn check_15_only_the_right_header_opens_commands() {
        let basic = CommandAuth::Basic { user: "u".into(), password: Key::new("p") };
        let bearer = CommandAuth::Bearer(Key::new("tok"));
        for header in [None, Some(""), Some("Basic"), Some("Basic dTpw"), Some("Bearer tok"), Some("Bearer ")]
        {
            assert!(!CommandAuth::Closed.permits(header), "{header:?}");
        }
        assert!(basic.permits(Some("Basic dTpw")) && basic.permits(Some("bAsIc dTpw")));
        assert!(bearer.permits(Some("Bearer tok")) && bearer.permits(Some("bearer tok")));
        for header in ["Basic dTpx", "Basic %%%", "Basic dTo=", "Bearer tok", "Basic", "dTpw"] {
            assert!(!basic.permits(Some(header)), "{header}");
        }
        for header in ["Bearer to", "Bearer token", "Basic tok", "tok", "Bearer"] {
            assert!(!bearer.permits(Some(header)), "{header}");
        }
    }
}
