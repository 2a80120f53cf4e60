package warden

import (
	"time"

	"github.com/ipc-cr/ipc-cr/plugin/internal/beside"
	"github.com/ipc-cr/ipc-cr/plugin/internal/lineage"
	"github.com/ipc-cr/ipc-cr/plugin/internal/restoring"
)

// family says who is never stopped for a CRIU run, by the real chain of parents
// at that moment: a parent that ends hands its children to another one.
type family struct {
	criu, init int
	above      map[int]bool // CRIU's ancestors and CRIU
	looked     time.Time    // when above was
	beside     beside.Family
	making     *restoring.Runs
	met        bool // a task that another CRIU is making
}

// chainAge is how long the chain above CRIU counts as the present one: a stop of
// a thousand processes asks a thousand times within milliseconds.
const chainAge = 5 * time.Millisecond

// exempt is for one goroutine at a time.
func (f *family) exempt(pid int) bool {
	if f.above == nil || time.Since(f.looked) > chainAge {
		f.above, f.looked = map[int]bool{}, time.Now()
		for _, ancestor := range lineage.Of(f.criu) {
			f.above[ancestor] = true
		}
	}
	if f.above[pid] {
		return true
	}
	for _, ancestor := range lineage.Of(pid) {
		if ancestor == f.criu || f.init != 0 && ancestor == f.init {
			return true
		}
	}
	if f.beside.Has(pid) {
		return true
	}
	_, making := f.making.Making(pid)
	f.met = f.met || making
	return making
}
