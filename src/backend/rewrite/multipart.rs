//! Replaces the `model` field of a multipart form, for audio and images on v1 (RFC 7578).

use bytes::Bytes;

use super::{
    Unnameable,
    deployment::Deployment,
    splice::{BodyEdits, Edited},
};
use crate::azure::Parts;

/// The form with the content of every part named `model` replaced and all other bytes unchanged,
/// except that part's own `Content-Length` if a client wrote one.
///
/// `content_type` is the header's value, with the boundary. `None` if there is nothing to replace, or
/// the form is incomplete or malformed.
///
/// # Errors
///
/// If a name is in a transfer encoding, which no client uses.
pub(super) fn rename_field(
    body: &Bytes,
    content_type: &[u8],
    deployment: &Deployment,
) -> Result<Option<Edited>, Unnameable> {
    let name = deployment.name().as_bytes();
    let length = name.len().to_string();
    let mut edits = BodyEdits::default();
    let Ok(parts) = Parts::of(body, content_type) else { return Ok(None) };
    for part in parts {
        let Ok(part) = part else { return Ok(None) };
        if part.is_model && body[part.content.clone()] != *name {
            if !part.is_plain {
                return Err(Unnameable);
            }
            if let Some(digits) = part.length {
                edits.push(digits, length.as_bytes());
            }
            edits.push(part.content, name);
        }
    }
    Ok(edits.apply(body))
}

/// `rename_field`, as one contiguous body.
#[cfg(any(test, fuzzing))]
pub(crate) fn replace_model_field(
    body: &Bytes,
    content_type: &[u8],
    deployment: &Deployment,
) -> Option<Bytes> {
    rename_field(body, content_type, deployment).ok()?.map(Edited::into_bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TYPE: &[u8] = b"multipart/form-data; boundary=XX";

    fn replaced(form: &str, content_type: &[u8]) -> Option<String> {
        let deployment = Deployment::new("whisper-eu").unwrap();
        let body = Bytes::copy_from_slice(form.as_bytes());
        let edited = replace_model_field(&body, content_type, &deployment)?;
        Some(String::from_utf8(edited.to_vec()).unwrap())
    }

    fn form(head: &str, content: &str) -> String {
        format!(
            "--XX\r\nContent-Disposition: form-data; name=\"file\"; filename=\"model\"\r\n\
             Content-Type: audio/wav\r\n\r\nname=\"model\"\r\n--X\0\r\n\r\n--XX\r\n\
             {head}\r\n\r\n{content}\r\n--XX--\r\n"
        )
    }

    #[test]
    fn the_model_field_is_found_however_its_header_is_written() {
        for head in [
            "Content-Disposition: form-data; name=\"model\"",
            "content-disposition:form-data;name=model",
            "CONTENT-DISPOSITION: form-data ; NAME = \"mo\\del\" ",
            "Content-Disposition: form-data; x=\"a;name=b\"; name=\"model\"; filename=\"f\"",
            "Content-Disposition: form-data;\r\n name=\"model\"",
            "Content-Type: text/plain\r\nContent-Disposition: form-data; flag; name=\"model\"",
            "Content-Transfer-Encoding: 8BIT\r\nContent-Disposition: form-data; name=\"model\"",
        ] {
            let expected = form(head, "whisper-eu");
            for content in ["whisper-1", "", "whisper\r\n--X", "a\r\n\r\nb"] {
                assert_eq!(replaced(&form(head, content), TYPE), Some(expected.clone()), "{head}");
            }
            assert_eq!(replaced(&expected, TYPE), None, "there already");
        }
    }

    #[test]
    fn other_fields_are_left_alone() {
        for head in [
            "Content-Disposition: form-data; name=\"file\"; filename=\"model\"",
            "Content-Disposition: form-data; name=\"models\"",
            "Content-Disposition: form-data; name=\"Model\"",
            "Content-Disposition: form-data; filename=\"x; name=model\"",
            "Content-Disposition: form-data",
            "X-Disposition: form-data; name=\"model\"",
        ] {
            assert_eq!(replaced(&form(head, "whisper-1"), TYPE), None, "{head}");
        }
        assert_eq!(replaced("--XX\r\n\r\nmodel\r\n--XX--", TYPE), None, "a part without headers");
    }

    #[test]
    fn a_length_that_a_client_wrote_follows_the_content() {
        let head = |length| {
            format!("Content-Disposition: form-data; name=\"model\"\r\nContent-Length: {length} ")
        };
        assert_eq!(
            replaced(&form(&head(9), "whisper-1"), TYPE),
            Some(form(&head(10), "whisper-eu"))
        );
    }

    #[test]
    fn every_part_called_model_is_replaced_between_preamble_and_epilogue() {
        let form = |model: &str| {
            let part =
                format!("--XX \t\r\nContent-Disposition: form-data; name=model\r\n\r\n{model}\r\n");
            format!("preamble --XX\r\n{part}{part}--XX--epilogue\r\n--XX\r\n")
        };
        assert_eq!(replaced(&form("whisper-1"), TYPE), Some(form("whisper-eu")));
    }

    #[test]
    fn the_boundary_is_read_from_every_spelling_of_the_content_type() {
        let form = form("Content-Disposition: form-data; name=model", "whisper-1");
        for (content_type, reads) in [
            (&b"multipart/form-data; boundary=XX"[..], true),
            (b"Multipart/Form-Data;charset=utf-8;Boundary=\"XX\"", true),
            (b"multipart/form-data ; a=\"; boundary=YY\" ; boundary = XX ; b=c", true),
            (b"multipart/form-data; boundary=\"X\\X\"", true),
            (b"multipart/mixed; boundary=XX", true),
            (b"application/json; boundary=XX", false),
            (b"multipart/form-data", false),
            (b"multipart/form-data; boundary=", false),
            (b"multipart/form-data; boundary=\"XX", false),
            (b"multipart/form-data; boundary=X", false),
            (b"multipart/form-data; boundary=YY", false),
            (b"", false),
        ] {
            assert_eq!(replaced(&form, content_type).is_some(), reads, "{content_type:?}");
        }
    }

    #[test]
    fn a_form_that_is_not_whole_is_left_alone() {
        let whole = form("Content-Disposition: form-data; name=model", "whisper-1");
        let closing = whole.len() - "\r\n".len();
        for length in 0..closing {
            assert_eq!(replaced(&whole[..length], TYPE), None, "{length} of {}", whole.len());
        }
        assert!(replaced(&whole[..closing], TYPE).is_some());
        assert_eq!(replaced(&whole.replace("\r\n", "\n"), TYPE), None, "bare line feeds");
        assert_eq!(replaced(&whole.replace("model\r\n", "model\r\nno colon\r\n"), TYPE), None);
        assert_eq!(replaced(&whole.replace("whisper-1", "x\r\n--XXY"), TYPE), None);
        let encoded = form(
            "Content-Disposition: form-data; name=model\r\nContent-Transfer-Encoding: base64",
            "d2hpc3Blci0x",
        );
        assert_eq!(replaced(&encoded, TYPE), None);
    }

    const PIECES: &[&[u8]] = &[
        b"--X",
        b"\r\n",
        b"--",
        b":",
        b";",
        b"=",
        b"\"",
        b"\\",
        b"name",
        b"model",
        b" ",
        b"\xff",
        b"Content-Disposition: form-data; name=model\r\n\r\n",
        b"Content-Length:",
    ];

    proptest! {
        #[test]
        fn bytes_of_other_parts_never_change(file in prop::collection::vec(any::<u8>(), 0..200)) {
            let part = |model: &[u8]| {
                let before = b"--X-y\r\nContent-Disposition: form-data; name=\"file\"\r\n\r\n";
                let between = b"\r\n--X-y\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n";
                Bytes::from([before, &*file, between, model, b"\r\n--X-y--\r\n"].concat())
            };
            let deployment = Deployment::new("d").unwrap();
            let edited = replace_model_field(
                &part(b"whisper-1"), b"multipart/form-data; boundary=X-y", &deployment,
            );
            prop_assert_eq!(edited, Some(part(b"d")));
        }

        #[test]
        fn arbitrary_forms_never_panic(
            pieces in prop::collection::vec(
                prop::sample::select(PIECES),
                0..30,
            ),
        ) {
            let deployment = Deployment::new("d").unwrap();
            let text = Bytes::from(pieces.concat());
            replace_model_field(&text, b"multipart/form-data; boundary=X", &deployment);
            let form = Bytes::from([b"--X\r\n", &*text, b"\r\n--X--"].concat());
            replace_model_field(&form, b"multipart/form-data; boundary=X", &deployment);
            replace_model_field(&form, &text, &deployment);
        }
    }
}
