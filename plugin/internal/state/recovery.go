package state

// Recovery is what was put right of what dead processes left in the directory,
// and what could not be, each a line for stderr.
type Recovery struct {
	Done     []string
	Warnings []string
}

// Did adds a line to Done, unless it is empty.
func (r *Recovery) Did(line string) {
	if line != "" {
		r.Done = append(r.Done, line)
	}
}

// Warn adds an error to Warnings, if it is one.
func (r *Recovery) Warn(err error) {
	if err != nil {
		r.Warnings = append(r.Warnings, err.Error())
	}
}
