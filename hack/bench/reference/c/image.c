#include "bench.h"
#include "image.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static void image_flush(struct image *img)
{
	write_all(img->fd, img->buffer, img->end);
	img->end = 0;
}

void image_create(struct image *img, const char *dir, const char *name, uint32_t magic)
{
	uint32_t magics[] = { MAGIC_COMMON, magic };

	img->fd = open_in(dir, name, O_WRONLY | O_CREAT | O_TRUNC);
	img->writing = 1;
	img->at = img->end = 0;
	image_write(img, magics, sizeof(magics));
}

void image_open(struct image *img, const char *dir, const char *name, uint32_t magic)
{
	uint32_t magics[2];

	img->fd = open_in(dir, name, O_RDONLY);
	img->writing = 0;
	img->at = img->end = 0;
	if (image_read(img, magics, sizeof(magics)) && magics[0] == MAGIC_COMMON && magics[1] == magic)
		return;
	errno = EBADMSG;
	die(name);
}

void image_write(struct image *img, const void *data, size_t size)
{
	if (img->end + size > PAGE)
		image_flush(img);
	if (size > PAGE) {
		write_all(img->fd, data, size);
		return;
	}
	memcpy(img->buffer + img->end, data, size);
	img->end += size;
}

static int image_fill(struct image *img)
{
	ssize_t n = read(img->fd, img->buffer, PAGE);

	if (n < 0)
		die("read");
	img->at = 0;
	img->end = n;
	return n > 0;
}

int image_read(struct image *img, void *data, size_t size)
{
	size_t done = 0;

	while (done < size) {
		size_t n = img->end - img->at;

		if (n == 0 && !image_fill(img))
			return 0;
		n = img->end - img->at;
		if (n > size - done)
			n = size - done;
		memcpy((char *)data + done, img->buffer + img->at, n);
		img->at += n;
		done += n;
	}
	return 1;
}

void image_close(struct image *img)
{
	if (img->writing)
		image_flush(img);
	close(img->fd);
}

static void put_varint(struct record *r, uint64_t value)
{
	while (value >= 0x80) {
		r->data[r->size++] = value | 0x80;
		value >>= 7;
	}
	r->data[r->size++] = value;
}

static uint64_t get_varint(struct record *r)
{
	uint64_t value = 0;

	for (unsigned shift = 0; shift < 64 && r->at < r->size; shift += 7) {
		uint8_t byte = r->data[r->at++];

		value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80)
			break;
	}
	return value;
}

void record_put(struct record *r, unsigned field, uint64_t value)
{
	put_varint(r, field << 3);
	put_varint(r, value);
}

void record_put_record(struct record *r, unsigned field, const struct record *inner)
{
	put_varint(r, field << 3 | 2);
	put_varint(r, inner->size);
	memcpy(r->data + r->size, inner->data, inner->size);
	r->size += inner->size;
}

void record_write(struct image *img, const struct record *r)
{
	image_write(img, &r->size, sizeof(r->size));
	image_write(img, r->data, r->size);
}

int record_read(struct image *img, struct record *r)
{
	r->at = 0;
	if (!image_read(img, &r->size, sizeof(r->size)))
		return 0;
	if (r->size <= sizeof(r->data) && image_read(img, r->data, r->size))
		return 1;
	errno = EBADMSG;
	die("image record");
}

unsigned record_next(struct record *r, uint64_t *value, struct record *inner)
{
	uint64_t tag;

	if (r->at >= r->size)
		return 0;
	tag = get_varint(r);
	*value = get_varint(r);
	if ((tag & 7) != 2)
		return tag >> 3;
	if (!inner || *value > r->size - r->at) {
		errno = EBADMSG;
		die("image record");
	}
	inner->size = *value;
	inner->at = 0;
	memcpy(inner->data, r->data + r->at, inner->size);
	r->at += inner->size;
	return tag >> 3;
}
