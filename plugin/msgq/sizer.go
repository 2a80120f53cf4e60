package msgq

// sizer chooses how large a buffer the next MSG_COPY gets.
//
// Both errors cost. A buffer that is too large costs because the kernel first
// copies min(size, msgmax) bytes of it in (ipc/msg.c, prepare_copy). One that is
// too small costs because the kernel answers E2BIG only after it has walked the
// queue to the message, and then walks it again. So the buffer shrinks when the
// bytes it wasted have cost as much as the E2BIG that shrinking risks: whatever
// the messages are, about twice the price of knowing their sizes at worst.
type sizer struct {
	size   int
	left   int // bytes of payload still in the queue: no message is longer
	peak   int // longest message so far
	recent int // longest since the size last changed
	waste  int // ns spent on unused bytes since then
}

// What the kernel takes, in nanoseconds, measured on x86-64 at 3 GHz. Only
// their proportions matter.
const (
	nsPerKiB  = 240 // to copy a buffer in, its memory included
	nsPerStep = 24  // to walk from one message to the next
	nsPerCall = 500
)

// newSizer begins with the average: most queues hold messages of one size.
func newSizer(messages, bytes int) sizer {
	return sizer{size: (bytes + messages - 1) / max(messages, 1), left: bytes}
}

// next returns the size of the buffer for the next message.
func (s *sizer) next() int { return min(s.size, s.left) }

// took records the length of the message at an index, which fitted.
func (s *sizer) took(length, index int) {
	s.waste += (s.next() - length) * nsPerKiB >> 10
	s.left -= length
	s.peak = max(s.peak, length)
	s.recent = max(s.recent, length)
	if s.waste > index*nsPerStep+nsPerCall {
		s.set(s.recent)
	}
}

// grow answers E2BIG. It reports whether a larger buffer can help: not if it held
// all the bytes that the queue had left.
func (s *sizer) grow() bool {
	if s.size >= s.left {
		return false
	}
	wanted := max(2*s.size, 64)
	if s.peak > s.size {
		wanted = s.peak // large and small ones take turns
	}
	s.set(wanted)
	return true
}

func (s *sizer) set(size int) { s.size, s.recent, s.waste = size, 0, 0 }
