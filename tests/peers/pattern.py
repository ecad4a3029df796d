"""The payloads of the peers' tests, the same in every language: a block of prime length, repeated."""
UNIT = "framegate é € 😀 ".encode()


def pattern(kind, size, seed=0):
    if kind == "text":
        whole = size // len(UNIT)
        return UNIT * whole + b"x" * (size - whole * len(UNIT))
    block = bytes((i * 31 + (i >> 8) * 7 + seed) & 255 for i in range(min(size, 65521)))
    return (block * (size // max(1, len(block)) + 1))[:size]
