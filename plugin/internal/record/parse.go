package record

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter"
)

// maxNumbers bounds the numbers of one object.
const maxNumbers = 32

// parse reads a record that may have been damaged or planted. It takes nothing
// but what encode writes; its errors match ErrDamaged.
func parse(text []byte) (*Record, error) {
	p := &parser{text: text}
	r := &Record{}
	p.record(r)
	if p.failed || p.at != len(text) {
		return nil, fmt.Errorf("%w: byte %d is not what it would have written", ErrDamaged, p.at)
	}
	// Numbers and strings have several forms.
	if again := r.encode(); !bytes.Equal(again, text) {
		return nil, fmt.Errorf("%w: another form", ErrDamaged)
	}
	return r, nil
}

// parser reads what encoder writes. After a failure it goes no further.
type parser struct {
	text   []byte
	at     int
	failed bool
}

func (p *parser) record(r *Record) {
	p.want(`{"format":`)
	if p.unsigned() != format {
		p.failed = true
	}
	p.want(`,"target":`)
	r.Target = p.identity()
	p.want(",\n\"taken\":[")
	p.list("\n", func() { r.Taken = append(r.Taken, p.taken()) })
	p.want(",\n\"sources\":[")
	p.list("\n", func() { r.Sources = append(r.Sources, p.source()) })
	p.want("}\n")
}

// has takes the text if it comes next.
func (p *parser) has(s string) bool {
	if p.failed || len(p.text)-p.at < len(s) || string(p.text[p.at:p.at+len(s)]) != s {
		return false
	}
	p.at += len(s)
	return true
}

func (p *parser) want(s string) {
	if !p.has(s) {
		p.failed = true
	}
}

// list reads items, each behind the text before it, up to the closing bracket.
func (p *parser) list(before string, item func()) {
	for first := true; !p.failed && !p.has("]"); first = false {
		if !first {
			p.want(",")
		}
		p.want(before)
		if !p.failed {
			item()
		}
	}
}

// digits takes a number.
func (p *parser) digits() string {
	from := p.at
	for p.at < len(p.text) && (p.text[p.at] == '-' || '0' <= p.text[p.at] && p.text[p.at] <= '9') {
		p.at++
	}
	return string(p.text[from:p.at])
}

func (p *parser) integer() int64 {
	n, err := strconv.ParseInt(p.digits(), 10, 64)
	p.failed = p.failed || err != nil
	return n
}

func (p *parser) unsigned() uint64 {
	n, err := strconv.ParseUint(p.digits(), 10, 64)
	p.failed = p.failed || err != nil
	return n
}

func (p *parser) word() uint32 {
	n, err := strconv.ParseUint(p.digits(), 10, 32)
	p.failed = p.failed || err != nil
	return uint32(n)
}

func (p *parser) truth() bool {
	if p.has("true") {
		return true
	}
	p.want("false")
	return false
}

// quoted takes a string.
func (p *parser) quoted() (s string) {
	from := p.at
	if p.want(`"`); p.failed {
		return ""
	}
	for escaped := false; p.at < len(p.text); p.at++ {
		switch c := p.text[p.at]; {
		case escaped:
			escaped = false
		case c == '\\':
			escaped = true
		case c == '"':
			p.at++
			return p.unquote(p.text[from:p.at])
		}
	}
	p.failed = true
	return ""
}

func (p *parser) unquote(text []byte) (s string) {
	if s = string(text[1 : len(text)-1]); plain(s) {
		return s
	}
	if err := json.Unmarshal(text, &s); err != nil {
		p.failed = true
	}
	return s
}

func (p *parser) identity() (id nsenter.Identity) {
	p.want(`{"boot_id":`)
	id.BootID = p.quoted()
	p.want(`,"ns_id":`)
	id.ID = p.unsigned()
	p.want(`,"inode":`)
	id.Inode = p.unsigned()
	if p.has(`,"tasks":[`) {
		p.list("", func() { id.Tasks = append(id.Tasks, p.task()) })
		p.failed = p.failed || len(id.Tasks) > maxTasks
	}
	p.want("}")
	return id
}

func (p *parser) task() (t nsenter.Task) {
	p.want(`{"pid":`)
	pid := p.integer()
	p.failed = p.failed || pid < 1 || int64(int(pid)) != pid
	p.want(`,"start_time":`)
	t = nsenter.Task{PID: int(pid), Start: p.unsigned()}
	p.want("}")
	return t
}

func (p *parser) snapshot() (s Snapshot) {
	p.want(`"boottime_ns":`)
	s.Boottime = p.integer()
	p.want(`,"created":`)
	var err error
	if s.Created, err = time.Parse(time.RFC3339, p.quoted()); err != nil {
		p.failed = true
	}
	p.want(`,"images_dir":`)
	s.Dir = p.quoted()
	return s
}

func (p *parser) taken() (t Taken) {
	p.want("{")
	t.Snapshot = p.snapshot()
	p.want(`,"left_running":`)
	t.LeftRunning = p.truth()
	p.want("}")
	return t
}

func (p *parser) source() (s Source) {
	p.want(`{"namespace":`)
	s.Namespace = p.identity()
	p.want(`,"restored":{`)
	s.Snapshot = p.snapshot()
	p.want(`},"objects":`)
	s.Objects = p.objects()
	if p.has(",\n\"ran\":[") {
		p.list("\n", func() { s.Ran = append(s.Ran, p.ran()) })
		p.failed = p.failed || len(s.Ran) > maxRan
	}
	if p.has(",\n\"pending\":{\"restored\":{") {
		s.Pending = p.pending()
	}
	p.want("}")
	return s
}

func (p *parser) ran() (r Ran) {
	p.want(`{"boottime_ns":`)
	r.Boottime = p.integer()
	p.want(`,"second":`)
	r.Second = p.integer()
	p.want(`,"uptime_ns":`)
	r.Uptime = p.integer()
	p.want(`,"absent":{`)
	for first := true; !p.failed && !p.has("}"); first = false {
		if !first {
			p.want(",")
		}
		kind := p.quoted()
		p.want(":[")
		names := []string{}
		p.list("", func() { names = append(names, p.quoted()) })
		if _, twice := r.Absent[kind]; twice {
			p.failed = true
		}
		if r.Absent == nil {
			r.Absent = map[string][]string{}
		}
		r.Absent[kind] = names
	}
	p.want("}")
	return r
}

func (p *parser) pending() *Pending {
	d := &Pending{Snapshot: p.snapshot()}
	p.want(`},"sealing":`)
	d.Sealing = p.truth()
	p.want(`,"makes":`)
	d.Makes = p.objects()
	p.want(`,"leaves":`)
	d.Leaves = p.objects()
	p.want("}")
	return d
}

func (p *parser) objects() Objects {
	found := Objects{}
	p.want("{")
	for first := true; !p.failed && !p.has("}"); first = false {
		if !first {
			p.want(",")
		}
		kind := p.quoted()
		p.want(":[")
		list := []Object{}
		p.list("\n", func() { list = append(list, p.object()) })
		if _, twice := found[kind]; twice {
			p.failed = true
		}
		found[kind] = list
	}
	return found
}

func (p *parser) object() (o Object) {
	p.want("[")
	o.Name = p.quoted()
	p.want(",")
	o.Sum = p.word()
	p.want(",[")
	o.Head = numbers(p, p.word)
	if p.has(",[") {
		o.Left = numbers(p, p.integer)
	}
	p.want("]")
	return o
}

// numbers reads a list of numbers of one object.
func numbers[T uint32 | int64](p *parser, number func() T) []T {
	var some [maxNumbers]T
	count := 0
	p.list("", func() {
		if count == len(some) {
			p.failed = true
			return
		}
		some[count] = number()
		count++
	})
	return append(make([]T, 0, count), some[:count]...)
}
