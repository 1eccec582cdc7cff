//! How the agent proves who it is.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::header::HeaderValue;

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being printed.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretFrom {
    /// It was given, in an environment variable.
    Text(Secret),
    /// In a file, which is read again when it changes.
    File(PathBuf),
}

impl SecretFrom {
    /// The secret as it is now. Reads a small file.
    pub fn read(&self) -> Result<Secret, String> {
        match self {
            Self::Text(secret) => Ok(secret.clone()),
            Self::File(path) => read_file(path),
        }
    }

    fn file(&self) -> Option<&Path> {
        match self {
            Self::Text(_) => None,
            Self::File(path) => Some(path),
        }
    }
}

fn read_file(path: &Path) -> Result<Secret, String> {
    let text =
        fs::read_to_string(path).map_err(|error| format!("could not read {}: {error}", path.display()))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(format!("{} is empty; write the secret into it", path.display())),
        secret if secret.chars().any(char::is_control) => {
            Err(format!("{} has more than one line; keep only the secret", path.display()))
        }
        secret => Ok(Secret::new(secret)),
    }
}

/// How the agent proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Auth {
    /// Not at all.
    None,
    /// User and password.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: SecretFrom,
    },
    /// `Authorization: ApiKey`. The key in base-64 as the server calls it `encoded`, or `id:api_key`.
    ApiKey(SecretFrom),
    /// `Authorization: Bearer`.
    Bearer(SecretFrom),
}

impl Auth {
    /// The value of the `Authorization` header. Reads the secret's file.
    pub fn header(&self) -> Result<Option<HeaderValue>, String> {
        let text = match self {
            Self::None => return Ok(None),
            Self::Basic { username, password } => {
                let both = format!("{username}:{}", password.read()?.expose());
                format!("Basic {}", STANDARD.encode(both))
            }
            Self::ApiKey(key) => {
                let key = key.read()?;
                match key.expose().trim() {
                    pair if pair.contains(':') => format!("ApiKey {}", STANDARD.encode(pair)),
                    encoded => format!("ApiKey {encoded}"),
                }
            }
            Self::Bearer(token) => format!("Bearer {}", token.read()?.expose().trim()),
        };
        // The error repeats nothing of the text.
        let mut value = HeaderValue::from_str(&text).map_err(|_| "the secret has odd characters in it")?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    /// The file that the secret is in.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::None => None,
            Self::Basic { password: secret, .. } | Self::ApiKey(secret) | Self::Bearer(secret) => {
                secret.file()
            }
        }
    }

    /// What to do when the server does not let the agent in.
    pub fn remedy(&self) -> String {
        let place = |secret: &SecretFrom, key: &str| match secret {
            SecretFrom::File(path) => format!("{} (elasticsearch.auth.{key})", path.display()),
            SecretFrom::Text(_) => "the environment".to_owned(),
        };
        match self {
            Self::None => "the server asks who this is: set elasticsearch.auth".to_owned(),
            Self::Basic { username, password } => {
                format!("check the user {username} and the password in {}", place(password, "password_file"))
            }
            Self::ApiKey(key) => format!("write a valid API key into {}", place(key, "api_key_file")),
            Self::Bearer(token) => format!("write a valid token into {}", place(token, "bearer_file")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(secret: &str) -> SecretFrom {
        SecretFrom::Text(Secret::new(secret))
    }

    #[test]
    fn each_way_has_its_header_and_none_is_printed() {
        for (auth, expected) in [
            (Auth::Basic { username: "u".into(), password: text("p:q") }, "Basic dTpwOnE="),
            (Auth::ApiKey(text("VnVhQ2ZHY0JDZGJrU")), "ApiKey VnVhQ2ZHY0JDZGJrU"),
            (Auth::ApiKey(text("id:key")), "ApiKey aWQ6a2V5"),
            (Auth::Bearer(text("token")), "Bearer token"),
        ] {
            let header = auth.header().expect("a header").expect("one");
            assert_eq!(header, expected);
            assert_eq!(format!("{header:?}"), "Sensitive");
        }
        assert_eq!(Auth::None.header(), Ok(None));
        let odd = Auth::Bearer(text("a\u{7f}b")).header();
        assert!(odd.is_err_and(|error| !error.contains('b')));
    }
}
