package record

import (
	"encoding/json"
	"strconv"
	"time"

	"github.com/ipc-cr/ipc-cr/nsenter"
)

// format is raised when an older ipc-cr could misread a record.
const format = 1

// maxTasks bounds the tasks that stand for a namespace without an id.
const maxTasks = 256

// A record is JSON with a line for every object:
//
//	{"format":1,"target":{"boot_id":"...","ns_id":5,"inode":6},
//	"taken":[
//	{"boottime_ns":1,"created":"2026-01-02T03:04:05Z","images_dir":"/d","left_running":true}],
//	"sources":[
//	{"namespace":{...},"restored":{...},"objects":{"msgq":[
//	["7 0x77",3405691582,[7,119,384,0,0,0,0,16384,2],[1764000000,1764000001,4711]],
//	["8 0x78",0,[8,120,384,0,0,0,0,16384,0]]]},
//	"ran":[
//	{"boottime_ns":1,"second":1764000002,"uptime_ns":77,"absent":{"msgq":["8 0x78"]}}],
//	"pending":{"restored":{...},"sealing":false,"makes":{...},"leaves":{...}}}]}
//
// It is written and read by hand because there can be very many objects. What is
// read must be exactly what would be written.
type encoder []byte

// encode writes a record.
func (r *Record) encode() []byte {
	const line = 112 // usually
	e := make(encoder, 0, 1024+line*r.count())
	e.text(`{"format":`).integer(format).text(`,"target":`).identity(r.Target)
	e.text(",\n\"taken\":[")
	for i, t := range r.Taken {
		e.comma(i).text("\n").taken(t)
	}
	e.text("],\n\"sources\":[")
	for i := range r.Sources {
		e.comma(i).text("\n").source(&r.Sources[i])
	}
	e.text("]}\n")
	return e
}

// count returns the number of objects.
func (r *Record) count() (count int) {
	for i := range r.Sources {
		lists := []Objects{r.Sources[i].Objects}
		if p := r.Sources[i].Pending; p != nil {
			lists = append(lists, p.Makes, p.Leaves)
		}
		for _, objects := range lists {
			for _, list := range objects {
				count += len(list)
			}
		}
	}
	return count
}

func (e *encoder) text(s string) *encoder { *e = append(*e, s...); return e }

func (e *encoder) integer(n int64) *encoder { *e = strconv.AppendInt(*e, n, 10); return e }

func (e *encoder) unsigned(n uint64) *encoder { *e = strconv.AppendUint(*e, n, 10); return e }

func (e *encoder) truth(b bool) *encoder { *e = strconv.AppendBool(*e, b); return e }

func (e *encoder) comma(i int) *encoder {
	if i > 0 {
		e.text(",")
	}
	return e
}

// quote writes a string. A name of ours needs no second look.
func (e *encoder) quote(s string) *encoder {
	if plain(s) {
		return e.text(`"`).text(s).text(`"`)
	}
	quoted, _ := json.Marshal(s) // a string is always JSON
	*e = append(*e, quoted...)
	return e
}

// plain: JSON takes the string as it is.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			return false
		}
	}
	return true
}

func (e *encoder) identity(id nsenter.Identity) *encoder {
	e.text(`{"boot_id":`).quote(id.BootID).text(`,"ns_id":`).unsigned(id.ID).text(`,"inode":`).unsigned(id.Inode)
	if tasks := id.Tasks[:min(len(id.Tasks), maxTasks)]; len(tasks) > 0 {
		e.text(`,"tasks":[`)
		for i, task := range tasks {
			e.comma(i).text(`{"pid":`).integer(int64(task.PID)).text(`,"start_time":`).unsigned(task.Start).text("}")
		}
		e.text("]")
	}
	return e.text("}")
}

func (e *encoder) snapshot(s Snapshot) *encoder {
	return e.text(`"boottime_ns":`).integer(s.Boottime).
		text(`,"created":`).quote(stamp(s.Created)).
		text(`,"images_dir":`).quote(s.Dir)
}

// stamp is a time in RFC 3339, which ends with the year 9999: images may claim
// any.
func stamp(t time.Time) string {
	if t = t.UTC(); t.Year() < 1 || t.Year() > 9999 {
		t = time.Time{}
	}
	return t.Format(time.RFC3339)
}

func (e *encoder) taken(t Taken) *encoder {
	return e.text("{").snapshot(t.Snapshot).text(`,"left_running":`).truth(t.LeftRunning).text("}")
}

func (e *encoder) source(s *Source) *encoder {
	e.text(`{"namespace":`).identity(s.Namespace).text(`,"restored":{`).snapshot(s.Snapshot)
	e.text(`},"objects":`).objects(s.Objects)
	if len(s.Ran) > 0 {
		e.text(",\n\"ran\":[")
		for i := range s.Ran {
			e.comma(i).text("\n").ran(&s.Ran[i])
		}
		e.text("]")
	}
	if p := s.Pending; p != nil {
		e.text(",\n\"pending\":{\"restored\":{").snapshot(p.Snapshot).text(`},"sealing":`).truth(p.Sealing)
		e.text(`,"makes":`).objects(p.Makes).text(`,"leaves":`).objects(p.Leaves).text("}")
	}
	return e.text("}")
}

func (e *encoder) ran(r *Ran) *encoder {
	e.text(`{"boottime_ns":`).integer(r.Boottime).text(`,"second":`).integer(r.Second).text(`,"uptime_ns":`).integer(r.Uptime).text(`,"absent":{`)
	for i, kind := range sortedKeys(r.Absent) {
		e.comma(i).quote(kind).text(":[")
		for i, name := range r.Absent[kind] {
			e.comma(i).quote(name)
		}
		e.text("]")
	}
	return e.text("}}")
}

func (e *encoder) objects(o Objects) *encoder {
	e.text("{")
	for i, kind := range sortedKeys(o) {
		e.comma(i).quote(kind).text(":[")
		for i := range o[kind] {
			e.comma(i).text("\n").object(&o[kind][i])
		}
		e.text("]")
	}
	return e.text("}")
}

func (e *encoder) object(o *Object) *encoder {
	e.text("[").quote(o.Name).text(",").unsigned(uint64(o.Sum)).text(",[")
	for i, n := range o.Head {
		e.comma(i).unsigned(uint64(n))
	}
	e.text("]")
	if o.Left != nil {
		e.text(",[")
		for i, n := range o.Left {
			e.comma(i).integer(n)
		}
		e.text("]")
	}
	return e.text("]")
}
