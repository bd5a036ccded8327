//! Decompression that ends: what comes out is bounded before it is made.

use std::io::Read;

use flate2::read::MultiGzDecoder;
use ruzstd::decoding::StreamingDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};

/// How a file, or a page of a Parquet file, is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// [RFC 1952](https://www.rfc-editor.org/rfc/rfc1952), one member or several.
    Gzip,
    /// [RFC 8878](https://www.rfc-editor.org/rfc/rfc8878), one frame or several.
    Zstd,
    /// [Snappy](https://github.com/google/snappy/blob/main/format_description.txt) without frames, as pages have it.
    Snappy,
}

/// How much more may come of a file than it holds: a small file that becomes a very large one is a mistake, or an attack.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    limit: usize,
    left: usize,
}

impl Allowance {
    /// Bytes that any file may grow to.
    const LEAST: usize = 64 << 20;
    /// How many times its size a larger file may grow to.
    const RATIO: usize = 200;

    /// That of a file of `size` bytes: 64 MiB, or 200 times its size where that is more.
    pub fn of(size: usize) -> Allowance {
        let limit = size.saturating_mul(Self::RATIO).max(Self::LEAST);
        Allowance { limit, left: limit }
    }

    /// With so much of it spent that `bytes` are left.
    #[cfg(test)]
    pub fn left_with(self, bytes: usize) -> Allowance {
        Allowance { left: bytes, ..self }
    }

    /// Takes `bytes` of it, before they are made.
    ///
    /// # Errors
    /// A sentence, if they are more than is left.
    pub fn spend(&mut self, bytes: usize) -> Result<(), String> {
        self.left = self.left.checked_sub(bytes).ok_or_else(|| {
            format!("more than {} bytes come of it; expected at most {} times its size, or 64 MiB", self.limit, Self::RATIO)
        })?;
        Ok(())
    }
}

/// What `bytes` decompress to.
///
/// # Errors
/// A sentence, if they are broken or cut off, or if more comes of them than is allowed.
pub fn decompress(codec: Codec, bytes: &[u8], allowance: &mut Allowance) -> Result<Vec<u8>, String> {
    match codec {
        Codec::Gzip => {
            let mut out = Vec::new();
            drain(MultiGzDecoder::new(bytes), &mut out, allowance)
                .map_err(|error| error.unwrap_or_else(|reason| format!("broken gzip data: {reason}")))?;
            Ok(out)
        }
        Codec::Zstd => zstd(bytes, allowance),
        Codec::Snappy => {
            let broken = |error: snap::Error| format!("broken snappy data: {error}");
            allowance.spend(snap::raw::decompress_len(bytes).map_err(broken)?)?;
            snap::raw::Decoder::new().decompress_vec(bytes).map_err(broken)
        }
    }
}

fn zstd(mut bytes: &[u8], allowance: &mut Allowance) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let mut decoder = match StreamingDecoder::new(&mut bytes) {
            Ok(decoder) => decoder,
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                let length = length as usize;
                bytes = bytes.get(length..).ok_or("broken zstd data: a skipped frame is cut off")?;
                continue;
            }
            Err(error) => return Err(format!("broken zstd data: {error}")),
        };
        drain(&mut decoder, &mut out, allowance)
            .map_err(|error| error.unwrap_or_else(|reason| format!("broken zstd data: {reason}")))?;
        let written = decoder.decoder.get_checksum_from_data();
        if written.is_some() && written != decoder.decoder.get_calculated_checksum() {
            return Err("broken zstd data: its checksum is another".into());
        }
    }
    Ok(out)
}

/// Why a [`drain`] stopped: the allowance's sentence, or what the decoder said.
type Stopped = Result<String, std::io::Error>;

fn drain(mut decoder: impl Read, out: &mut Vec<u8>, allowance: &mut Allowance) -> Result<(), Stopped> {
    let mut piece = vec![0; 1 << 16];
    loop {
        let read = decoder.read(&mut piece).map_err(Err)?;
        if read == 0 {
            return Ok(());
        }
        allowance.spend(read).map_err(Ok)?;
        out.extend_from_slice(&piece[..read]);
    }
}
