"""Compiled modules without what only debuggers read: more than half of the bundle, which every pod copies."""

import struct

_64_BIT_LITTLE_ENDIAN = b"\x7fELF\x02\x01"


def loaded_part(file: bytes) -> bytes:
    """A shared object cut off behind what is loaded, without its table of sections, which linkers and debuggers read.

    The loader goes by the program headers (elf(5)). Debug information and symbol tables are never loaded and lie behind
    all that is. What is not ELF for a 64-bit little-endian machine comes back as it is.
    """
    if not file.startswith(_64_BIT_LITTLE_ENDIAN):
        return file
    (table,) = struct.unpack_from("<Q", file, 32)  # e_phoff
    size, number = struct.unpack_from("<HH", file, 54)  # e_phentsize, e_phnum
    end = table + size * number
    for index in range(number):
        (offset,) = struct.unpack_from("<Q", file, table + index * size + 8)  # p_offset
        (length,) = struct.unpack_from("<Q", file, table + index * size + 32)  # p_filesz
        end = max(end, offset + length)
    header = bytearray(file[:end])
    struct.pack_into("<Q", header, 40, 0)  # e_shoff: no sections
    struct.pack_into("<HHH", header, 58, 0, 0, 0)  # e_shentsize, e_shnum, e_shstrndx
    return bytes(header)
