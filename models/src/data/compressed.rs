//! Decompression that ends: what comes out is bounded while it is made.

use std::io::{self, Read};

use flate2::read::MultiGzDecoder;

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// [RFC 1952](https://www.rfc-editor.org/rfc/rfc1952), one member or several.
    Gzip,
    /// [RFC 8878](https://www.rfc-editor.org/rfc/rfc8878), one frame or several.
    Zstd,
}

/// Bytes that any file may grow to.
const LEAST: usize = 64 << 20;
/// How many times its size a larger file may grow to: a small one that becomes a very large one is a mistake, or an attack.
const RATIO: usize = 200;

/// What `bytes` decompress to.
///
/// # Errors
/// A sentence, if they are broken or cut off, or if they grow past 64 MiB and 200 times their size.
pub fn decompress(codec: Codec, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let (name, decoder): (_, io::Result<Box<dyn Read>>) = match codec {
        Codec::Gzip => ("gzip", Ok(Box::new(MultiGzDecoder::new(bytes)))),
        Codec::Zstd => ("zstd", zstd::Decoder::with_buffer(bytes).map(|decoder| Box::new(decoder) as _)),
    };
    let broken = |error: io::Error| format!("broken {name} data: {error}");
    let limit = bytes.len().saturating_mul(RATIO).max(LEAST);
    let mut out = Vec::new();
    decoder.map_err(broken)?.take(limit as u64 + 1).read_to_end(&mut out).map_err(broken)?;
    if out.len() > limit {
        return Err(format!("more than {limit} bytes come of it; expected at most {RATIO} times its size, or 64 MiB"));
    }
    Ok(out)
}
