package images

import (
	"errors"
	"fmt"
)

// ErrFormat is what every *FormatError matches: the bytes are at fault, not the
// reading of them.
var ErrFormat = errors.New("bad image")

// FormatError says where an image is not what it should be.
type FormatError struct {
	File   string // the file's name
	Offset int64  // in bytes, of the record at fault
	Reason string
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("%s: offset %d: %s", e.File, e.Offset, e.Reason)
}

// Is makes errors.Is(err, ErrFormat) true.
func (e *FormatError) Is(target error) bool { return target == ErrFormat }

func fault(file string, offset int64, format string, args ...any) error {
	return &FormatError{File: file, Offset: offset, Reason: fmt.Sprintf(format, args...)}
}
