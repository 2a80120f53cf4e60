package kind

import "github.com/ipc-cr/ipc-cr/plugin/internal/record"

// Wanted is what the engine wants of a Plan.
type Wanted struct {
	Policy Policy
	// Fill: what was made with the image's key, id, owner and mode, and was never used
	// since, is filled, whatever the policy is.
	Fill bool
	// Missing: only what is not there is made. What has the image's place is left
	// alone, whatever it holds.
	Missing bool
	// Second is from before anything of the namespace was looked at, as the kernel
	// stamps objects.
	Second int64
	// Anew: what an earlier Plan of the same image found out does not count any more.
	Anew bool
	// Orders has one for each of Image.Objects, or none: then the policy decides
	// about all.
	Orders []Order
	// Gone are objects of an earlier restore that the image does not have.
	Gone []Order
	// Record: what is left in the objects is going to be asked for.
	Record bool
	// Before and Now name the checkpoint that was restored last and this one.
	Before, Now string
}

// Do is what an order is about.
type Do int

// The orders. Decide leaves it to the policy. Stay leaves the object alone,
// whatever has become of it. Update replaces what Was tells of, or removes it if
// it is Gone, unless somebody has used it since. Hold wants the object to be equal
// to the image's. Rest wants it not to have been used since Since.
const (
	Decide Do = iota
	Stay
	Update
	Hold
	Rest
)

// Order is what the record says about one object.
type Order struct {
	Do     Do
	Reason string         // of Stay, and of Hold: of the checkpoint
	Was    *record.Object // what the last restore left; for Update and Rest
	// Of Rest: a second, as the kernel stamps objects, 0 if none of its stamps prove
	// anything, and whether the object was missing then.
	Since  int64
	Absent bool
	// Begun is what an interrupted restore was making there, nil for nothing. Its
	// leftover is made anew, or removed if it is Gone, whatever Do is.
	Begun *record.Object
	// Missing: the interrupted restore may have removed the object to make Begun,
	// so it is made if it is not there.
	Missing bool
	// Forgive leaves alone what would be a conflict.
	Forgive bool
}

// Order returns the order for an object of the image.
func (w *Wanted) Order(i int) Order {
	if len(w.Orders) == 0 {
		return Order{}
	}
	return w.Orders[i]
}
