package images

import "hash/crc32"

// castagnoli is the polynomial of CRC-32C, which processors compute.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum continues a CRC-32C over more bytes; it begins with 0.
func Checksum(crc uint32, b []byte) uint32 { return crc32.Update(crc, castagnoli, b) }

// joinFrom is the length from which to join two checksums costs less than to
// compute the second one twice.
const joinFrom = 16 << 10

// checksums continues two checksums over the same bytes: that of a queue's
// messages, and that of the file.
func checksums(queue, file *uint32, b []byte) {
	if len(b) < joinFrom {
		*queue, *file = Checksum(*queue, b), Checksum(*file, b)
		return
	}
	sum := Checksum(0, b)
	*queue, *file = join(*queue, sum, len(b)), join(*file, sum, len(b))
}

// JoinChecksums returns the CRC-32C of a text from those of its two parts.
func JoinChecksums(first, second uint32, secondLen int) uint32 { return join(first, second, secondLen) }

// join returns the checksum of a text of which the two parts' are known, and the
// length of the second: the checksum is the remainder of a division of
// polynomials, and to append n bytes multiplies by x to the power of 8n.
func join(first, second uint32, length int) uint32 {
	shift := uint32(1) << 31 // the polynomial 1: bits are in reverse order
	for i := 0; length > 0; i, length = i+1, length>>1 {
		if length&1 != 0 {
			shift = multiply(shift, bytePowers[i])
		}
	}
	return multiply(first, shift) ^ second
}

// bytePowers holds x to the power of 8 times 2^i.
var bytePowers = func() (powers [63]uint32) {
	powers[0] = 1 << (31 - 8)
	for i := 1; i < len(powers); i++ {
		powers[i] = multiply(powers[i-1], powers[i-1])
	}
	return powers
}()

// multiply multiplies two polynomials modulo the Castagnoli polynomial.
func multiply(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 {
		if a&(1<<31) != 0 {
			product ^= b
		}
		carry := -(b & 1)
		b = b>>1 ^ crc32.Castagnoli&carry
	}
	return product
}
