//! Masking of RFC 6455 section 5.3.

/// XORs `bytes` with `key`; `offset` is how far into the payload they begin.
pub fn mask(bytes: &mut [u8], key: [u8; 4], offset: u64) {
    let turn = (offset % 4) as u32 * 8;
    let word = u32::from_ne_bytes(key);
    let word = if cfg!(target_endian = "little") { word.rotate_right(turn) } else { word.rotate_left(turn) };
    let wide = u64::from(word) << 32 | u64::from(word);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(wide.to_ne_bytes()) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_and_offset_agrees_with_the_definition() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        for len in 0..70 {
            for offset in 0..9u64 {
                let plain: Vec<u8> = (0..len as u8).collect();
                let mut got = plain.clone();
                mask(&mut got, key, offset);
                for (i, (g, p)) in got.iter().zip(&plain).enumerate() {
                    assert_eq!(*g, p ^ key[(offset as usize + i) % 4]);
                }
            }
        }
    }
}
