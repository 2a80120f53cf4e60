package kind

// Selection chooses System V objects by their key and the uid of their owner, as
// the caller's user namespace knows it. nil chooses all.
type Selection func(key int32, uid uint32) bool

// Has reports whether an object is chosen.
func (s Selection) Has(key int32, uid uint32) bool { return s == nil || s(key, uid) }

// Selectable is a kind that can be restricted to chosen objects.
type Selectable interface {
	Kind
	// Select returns the kind with the others out of sight: a survey does not count
	// them, an image that holds them is not restored whole, and nothing is done to
	// those that an earlier restore made. They still stand in the way of the chosen ones.
	Select(Selection) Kind
}

// NotSelected is the reason of the step Leave for an object of the image that is
// not chosen.
const NotSelected = "is not selected"
