package images_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/ipc-cr/ipc-cr/images"
)

// queuesAround are queues with messages of all lengths that a Part treats differently.
func queuesAround(random *rand.Rand) (queues []queue) {
	for i := range 1 + random.IntN(8) {
		q := queue{Queue: images.Queue{ID: uint32(i), Key: random.Uint32() >> random.IntN(32)}}
		for range random.IntN(30) {
			most := []int{20, 3000, 70 << 10, images.PieceSize, 5 * images.PieceSize}[random.IntN(5)]
			q.Messages = append(q.Messages, message{1 + random.Int64N(1<<(1+random.IntN(60))), pattern(random.IntN(most))})
		}
		q.QNum = uint32(len(q.Messages))
		queues = append(queues, q)
	}
	return queues
}

// readSomehow reads the messages of a queue in ways that change all the time.
func readSomehow(r *images.Reader, random *rand.Rand) (err error) {
	var bufs [8][]byte
	for err == nil {
		switch random.IntN(4) {
		case 0:
			_, err = r.Message()
		case 1:
			_, err = r.Msgbufs(bufs[:1+random.IntN(len(bufs))])
		case 2:
			_, err = r.Skip()
		default:
			n, _, _, skipErr := r.SkipAll(1 + random.IntN(20))
			if err = skipErr; n == 0 && err == nil {
				err = io.EOF
			}
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// However an image is read, and whoever reads its pieces, the checksums are the same.
func TestPartOfAnyImage(t *testing.T) {
	for seed := range uint64(25) {
		random := rand.New(rand.NewPCG(seed, 7))
		image := encode(t, queuesAround(random))
		want := sums(t, must[*images.Reader](t)(images.NewReader("the image", bytes.NewReader(image), int64(len(image)))))
		for way, use := range ways {
			p := images.NewPart(bytes.NewReader(image), 0, int64(len(image)))
			use(p)
			r := must[*images.Reader](t)(images.NewPartReader("the image", p))
			if got := sumsBy(t, r, func() error { return readSomehow(r, random) }); !slices.Equal(got, want) {
				t.Errorf("seed %d, %s: sums %x, want %x", seed, way, got, want)
			}
			p.Close()
		}
	}
}
