package kernel

// Walker copies queues by one walk along each, where MSG_COPY walks to every
// message anew. What it gives may be wrong while a queue is in use; see Walk.
type Walker interface {
	// Walk returns what copies queues on the calling thread, which is in their IPC
	// namespace and must stay. nil if there are too many already.
	Walk() Walk
}

// Walk copies the messages of a queue, from the oldest to the newest, and changes
// nothing. It belongs to one thread.
//
// It takes no lock. Whatever it gave is to be thrown away if any of its calls
// fails, or if the queue was used meanwhile: it may be memory of the kernel's that
// is nobody's business.
type Walk interface {
	// Begin begins with a queue that must have the counts of q.
	Begin(q *Queue) error
	// Next returns the length of the next message. Read must follow.
	Next() (size int, err error)
	// Read puts that message into buf, as Kernel.Copy does: HeaderLen bytes of
	// mtype, the payload.
	Read(buf []byte) error
	// End is called after the last message. It reports whether the queue ended there,
	// and is what it was at the beginning.
	End() error
	// Release ends the use of the Walk.
	Release()
}
