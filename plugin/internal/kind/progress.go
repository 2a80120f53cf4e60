package kind

import "sync/atomic"

// Progress counts what is done, from several threads. A nil Progress counts
// nothing.
type Progress struct {
	messages atomic.Int64
}

// Add counts messages that were copied or sent.
func (p *Progress) Add(messages int) {
	if p != nil {
		p.messages.Add(int64(messages))
	}
}

// Messages returns how many messages are done.
func (p *Progress) Messages() int64 { return p.messages.Load() }
