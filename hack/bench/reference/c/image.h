// CRIU's image files as the CRIU-like program reads and writes them: a buffer of one page in
// front of the file (criu/bfd.c), records of a u32 length and a protobuf (criu/protobuf.c).
#ifndef IMAGE_H
#define IMAGE_H

#include <stddef.h>
#include <stdint.h>

#define PAGE 4096

#define MAGIC_COMMON 0x54564319u
#define MAGIC_VAR 0x53115007u
#define MAGIC_MSG 0x55453737u

struct image {
	int fd, writing;
	size_t at, end; // unread or unwritten bytes are buffer[at..end)
	char buffer[PAGE];
};

void image_create(struct image *img, const char *dir, const char *name, uint32_t magic);
void image_open(struct image *img, const char *dir, const char *name, uint32_t magic);
void image_write(struct image *img, const void *data, size_t size);
// image_read returns 0 at the end of the file, else it has read all of size.
int image_read(struct image *img, void *data, size_t size);
void image_close(struct image *img);

// struct record is one protobuf message being packed or unpacked; the largest here, the limits,
// is under 150 bytes.
struct record {
	uint32_t size, at;
	uint8_t data[256];
};

void record_put(struct record *r, unsigned field, uint64_t value);
void record_put_record(struct record *r, unsigned field, const struct record *inner);
void record_write(struct image *img, const struct record *r);
int record_read(struct image *img, struct record *r);
// record_next returns the next field's number, 0 at the end; inner gets a field that is a record.
unsigned record_next(struct record *r, uint64_t *value, struct record *inner);

#endif
