//! An issuer of tokens on a loopback port, and keys to sign tokens with.

use std::{
    sync::{Arc, Mutex},
    time::SystemTime,
};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512,
        RsaEncoding, RsaKeyPair,
    },
};
use serde_json::{Value, json};
use tokio_rustls::rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject};

use crate::witness::Witness;

pub(super) const TENANT: &str = "6f6e2c3b-0b4e-4d8f-9a44-1c8f9d1a2b3c";
pub(super) const AUDIENCE: &str = "api://spillover";
const RSA: &str = include_str!("../tls/issuer-rsa.pem");

pub(super) fn b64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// The signing key.
pub(super) enum Signer {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

impl Signer {
    pub(super) fn rsa() -> Self {
        let der = PrivatePkcs8KeyDer::from_pem_slice(RSA.as_bytes()).unwrap();
        Self::Rsa(RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap())
    }

    pub(super) fn ec() -> Self {
        let (curve, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let pair = EcdsaKeyPair::generate_pkcs8(curve, &random).unwrap();
        Self::Ec(EcdsaKeyPair::from_pkcs8(curve, pair.as_ref(), &random).unwrap())
    }

    pub(super) fn jwk(&self, id: &str) -> Value {
        match self {
            Self::Rsa(pair) => {
                let key: ring::rsa::PublicKeyComponents<Vec<u8>> = pair.public().into();
                json!({ "kty": "RSA", "use": "sig", "kid": id, "n": b64(key.n), "e": b64(key.e),
                    "x5t": "another", "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0" })
            }
            Self::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": id,
                    "x": b64(&point[1..33]), "y": b64(&point[33..]) })
            }
        }
    }

    pub(super) fn sign(&self, head: &Value, claims: &Value) -> String {
        let text = format!("{}.{}", b64(head.to_string()), b64(claims.to_string()));
        let signature = match self {
            Self::Rsa(pair) => {
                let padding: &dyn RsaEncoding =
                    if head["alg"] == "RS512" { &RSA_PKCS1_SHA512 } else { &RSA_PKCS1_SHA256 };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
                signature
            }
            Self::Ec(pair) => {
                pair.sign(&SystemRandom::new(), text.as_bytes()).unwrap().as_ref().to_vec()
            }
        };
        format!("{text}.{}", b64(signature))
    }

    pub(super) fn token(&self, id: &str, claims: &Value) -> String {
        let algorithm = if matches!(self, Self::Rsa(_)) { "RS256" } else { "ES256" };
        self.sign(&json!({ "typ": "JWT", "alg": algorithm, "kid": id }), claims)
    }
}

/// An issuer on a loopback port, whose key set can change.
pub(super) struct Issuer {
    pub(super) witness: Witness,
    pub(super) keys: Arc<Mutex<(u16, String)>>,
}

impl Issuer {
    pub(super) fn new(keys: &[Value]) -> Self {
        let kept = Arc::new(Mutex::new((200, json!({ "keys": keys }).to_string())));
        let answers = Arc::clone(&kept);
        let witness = Witness::new(move |asked| {
            let host = asked.header("host").unwrap();
            let (status, keys) = answers.lock().unwrap().clone();
            if asked.head[0].contains("openid-configuration") {
                let found = json!({ "issuer": format!("http://{host}/{TENANT}/v2.0"),
                    "jwks_uri": format!("http://{host}/keys") });
                return (status, JSON, found.to_string());
            }
            (status, JSON, keys)
        });
        Self { witness, keys: kept }
    }

    pub(super) fn publish(&self, keys: &[Value]) {
        *self.keys.lock().unwrap() = (200, json!({ "keys": keys }).to_string());
    }

    pub(super) fn name(&self) -> String {
        format!("{}/{TENANT}/v2.0", self.witness.endpoint())
    }

    /// The claims of a valid token for `team-a`.
    pub(super) fn claims(&self) -> Value {
        let now = seconds();
        json!({ "iss": self.name(), "aud": AUDIENCE, "tid": TENANT, "sub": "someone",
            "oid": "object-1", "iat": now, "nbf": now, "exp": now + 600, "roles": ["TeamA"] })
    }

    pub(super) fn fetches(&self) -> usize {
        self.witness.asked().iter().filter(|asked| asked.head[0].contains("/keys")).count()
    }
}

pub(super) fn seconds() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "tokens have dates")]
    let now = SystemTime::now();
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// `null` removes a claim.
pub(super) fn changed(mut claims: Value, changes: &Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

const JSON: &str = "content-type: application/json\r\n";
