package images

import (
	"encoding/json"
	"errors"
	"fmt"
)

// The JSON file has a line for every object, and nothing in a restore depends on
// them. encoding/json takes longer over them than the kernel over making the
// objects, so they are only checked to be JSON here, and kept as they stand.

// errJSON is what is wrong with a byte that cannot stand where it does.
var errJSON = errors.New("invalid JSON")

// maxDepth bounds how deeply values are nested: the details are three levels.
const maxDepth = 32

// scanner walks over JSON text (RFC 8259).
type scanner struct {
	text []byte
	at   int
}

// splitObjects takes the value of the top-level field "objects" out of a JSON
// object: rest is the text with null in its place. Errors leave the offset in
// at.
func splitObjects(text []byte) (rest []byte, objects map[string]json.RawMessage, at int, err error) {
	s := &scanner{text: text}
	from, to := -1, -1
	err = s.object(func(key string) error {
		if key != "objects" {
			return s.value(maxDepth)
		}
		if from >= 0 {
			return errors.New(`"objects" stands there twice`)
		}
		objects, from = map[string]json.RawMessage{}, s.at
		err := s.members(objects)
		to = s.at
		return err
	})
	if err != nil || from < 0 {
		return text, nil, s.at, err
	}
	rest = append(rest, text[:from]...)
	rest = append(append(rest, "null"...), text[to:]...)
	return rest, objects, s.at, nil
}

// members collects the values of an object.
func (s *scanner) members(into map[string]json.RawMessage) error {
	return s.object(func(key string) error {
		if _, twice := into[key]; twice {
			return fmt.Errorf("%q stands there twice", key)
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
