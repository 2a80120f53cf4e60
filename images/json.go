package images

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The JSON file is read and written by hand. It has a line for every object, over
// which encoding/json takes longer than the kernel over making the objects, and
// for a checkpoint of a few messages its reflection costs more than everything
// else. What is read is strict JSON (RFC 8259) with known fields, each once.

// errJSON is what is wrong with a byte that cannot stand where it does.
var errJSON = errors.New("invalid JSON")

// maxDepth bounds how deeply values are nested: the details are three levels.
const maxDepth = 32

// scanner walks over JSON text.
type scanner struct {
	text []byte
	at   int
}

// end wants nothing but white space after the value.
func (s *scanner) end() error {
	if s.peek(); s.at < len(s.text) {
		return errors.New("something follows the end")
	}
	return nil
}

// errUnknown is what read says of a field that it does not know.
var errUnknown = errors.New("unknown field")

// record reads an object whose fields are known, each at most once. read reads the
// value of a field.
func (s *scanner) record(read func(name string) error) error {
	var seen [16]string // more fields than any record has
	fields := seen[:0]
	return s.object(func(key string) error {
		if slices.Contains(fields, key) {
			return fmt.Errorf("field %q stands there twice", key)
		}
		err := read(key)
		if err == errUnknown { //nolint:errorlint // it comes from read itself
			return fmt.Errorf("%w %q", err, key)
		}
		fields = append(fields, key)
		return err
	})
}

// items reads a list.
func (s *scanner) items(item func() error) error {
	if s.peek() != '[' {
		return errJSON
	}
	return s.list(']', item)
}

// string reads a string.
func (s *scanner) string(into *string) error {
	if s.peek() != '"' {
		return errors.New("not a string")
	}
	from := s.at
	text, err := s.str()
	if err != nil {
		return err
	}
	*into = string(text)
	if strings.ContainsRune(*into, '\\') || !utf8.ValidString(*into) {
		return json.Unmarshal(s.text[from:s.at], into) // the rare ones
	}
	return nil
}

// integer reads a whole number of so many bits.
func integer[T int | int64](s *scanner, into *T) error {
	text, err := s.digitsOf()
	if err != nil {
		return err
	}
	value, err := strconv.ParseInt(text, 10, 64)
	*into = T(value)
	return numberError(text, err)
}

// unsigned reads a whole number that is not negative.
func unsigned[T uint32 | uint64](s *scanner, into *T, bits int) error {
	text, err := s.digitsOf()
	if err != nil {
		return err
	}
	value, err := strconv.ParseUint(text, 10, bits)
	*into = T(value)
	return numberError(text, err)
}

func (s *scanner) digitsOf() (string, error) {
	if c := s.peek(); c != '-' && !isDigit(c) {
		return "", errors.New("not a number")
	}
	from := s.at
	err := s.number()
	return string(s.text[from:s.at]), err
}

func numberError(text string, err error) error {
	if err != nil {
		return fmt.Errorf("number %s: %w", text, errors.Unwrap(err))
	}
	return nil
}

// members collects the values of an object, as they stand.
func (s *scanner) members(into map[string]json.RawMessage) error {
	return s.object(func(key string) error {
		if _, twice := into[key]; twice {
			return fmt.Errorf("field %q stands there twice", key)
		}
		from := s.at
		err := s.value(maxDepth)
		into[key] = s.text[from:s.at:s.at]
		return err
	})
}

// peek skips white space and returns the next byte, 0 at the end.
func (s *scanner) peek() byte {
	for ; s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; c {
		case ' ', '\n', '\t', '\r':
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) expect(c byte) error {
	if s.peek() != c {
		return errJSON
	}
	s.at++
	return nil
}

// value skips one value.
func (s *scanner) value(depth int) error {
	if depth == 0 {
		return errors.New("nested too deeply")
	}
	switch c := s.peek(); {
	case c == '{':
		return s.object(func(string) error { return s.value(depth - 1) })
	case c == '[':
		return s.list(']', func() error { return s.value(depth - 1) })
	case c == '"':
		_, err := s.str()
		return err
	case c == '-' || '0' <= c && c <= '9':
		return s.number()
	}
	return s.literal()
}

// object calls member with each key when the value comes next.
func (s *scanner) object(member func(key string) error) error {
	if s.peek() != '{' {
		return errJSON
	}
	return s.list('}', func() error {
		if s.peek() != '"' {
			return errJSON
		}
		key, err := s.str()
		if err == nil {
			err = s.expect(':')
		}
		if err != nil {
			return err
		}
		s.peek()
		return member(string(key))
	})
}

// list skips an opening bracket, items with commas between them, and the
// closing one.
func (s *scanner) list(closing byte, item func() error) error {
	s.at++
	if s.peek() == closing {
		s.at++
		return nil
	}
	for {
		if err := item(); err != nil {
			return err
		}
		switch s.peek() {
		case ',':
			s.at++
		case closing:
			s.at++
			return nil
		default:
			return errJSON
		}
	}
}

// str skips a string and returns what is between the quotes.
func (s *scanner) str() ([]byte, error) {
	s.at++
	from := s.at
	for ; s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; {
		case c == '"':
			s.at++
			return s.text[from : s.at-1], nil
		case c < ' ':
			return nil, errJSON
		case c == '\\':
			if err := s.escape(); err != nil {
				return nil, err
			}
		}
	}
	return nil, errJSON
}

// escape moves to the last byte of an escape sequence.
func (s *scanner) escape() error {
	s.at++
	if s.at >= len(s.text) {
		return errJSON
	}
	switch s.text[s.at] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return nil
	case 'u':
		for range 4 {
			s.at++
			if s.at >= len(s.text) || !isHex(s.text[s.at]) {
				return errJSON
			}
		}
		return nil
	}
	return errJSON
}

func isHex(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func (s *scanner) number() error {
	s.accept('-')
	if !s.accept('0') && !s.digits() {
		return errJSON
	}
	if s.accept('.') && !s.digits() {
		return errJSON
	}
	if s.accept('e') || s.accept('E') {
		if !s.accept('+') {
			s.accept('-')
		}
		if !s.digits() {
			return errJSON
		}
	}
	return nil
}

func (s *scanner) accept(c byte) bool {
	if s.at < len(s.text) && s.text[s.at] == c {
		s.at++
		return true
	}
	return false
}

func (s *scanner) digits() bool {
	from := s.at
	for s.at < len(s.text) && isDigit(s.text[s.at]) {
		s.at++
	}
	return s.at > from
}

func (s *scanner) literal() error {
	for _, word := range []string{"null", "true", "false"} {
		if len(s.text)-s.at >= len(word) && string(s.text[s.at:s.at+len(word)]) == word {
			s.at += len(word)
			return nil
		}
	}
	return errJSON
}
