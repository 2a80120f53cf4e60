package eventlog

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// How long an entry's texts may be, in bytes. Together they are bounded by maxTexts:
// a container must not fill the log with one checkpoint.
const (
	maxError = 4 << 10
	maxText  = 1 << 10
	maxTexts = 12 << 10
)

// bound escapes an entry's texts, and cuts them. The error comes first, then the
// warnings: what was done is the least loss.
func (e *Entry) bound() {
	e.Action = Cut(Escape(e.Action), maxText)
	e.Container = Cut(Escape(e.Container), maxText)
	e.Dir = Cut(Escape(e.Dir), maxText)
	e.Error = Cut(Escape(e.Error), maxError)
	room := maxTexts - len(e.Error)
	e.Warnings = boundAll(e.Warnings, &room)
	e.Done = boundAll(e.Done, &room)
}

// boundAll bounds texts that have so much room together.
func boundAll(texts []string, room *int) []string {
	const quotes = 16 // what an empty one takes
	var kept []string
	for i, text := range texts {
		text = Cut(Escape(text), maxText)
		if *room -= len(text) + quotes; *room < 0 {
			return append(kept, fmt.Sprintf("... (%d more, left out)", len(texts)-i))
		}
		kept = append(kept, text)
	}
	return kept
}

// Bound returns texts as Write would put them into an entry.
func Bound(texts []string) []string {
	room := maxTexts
	return boundAll(texts, &room)
}

// BoundError is Bound for an error's text.
func BoundError(text string) string { return Cut(Escape(text), maxError) }

// Escape replaces what is not to be printed, as control characters and what changes
// the direction of writing, by its escape sequence in Go, and newlines by "; ". Its
// result is its own.
func Escape(text string) string {
	text = strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ")
	if isPlain(text) {
		return text
	}
	var b strings.Builder
	for len(text) > 0 {
		r, size := utf8.DecodeRuneInString(text)
		if unicode.IsPrint(r) && (r != utf8.RuneError || size > 1) {
			b.WriteString(text[:size])
		} else {
			quoted := strconv.QuoteToASCII(text[:size])
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		text = text[size:]
	}
	return b.String()
}

// isPlain reports whether all of a text is printable ASCII, as it mostly is.
func isPlain(text string) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

// Cut returns at most that many bytes of a text. Of one that is cut it says so, and
// how long it was.
func Cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	note := fmt.Sprintf("... (cut, %d bytes in all)", len(text))
	end := max(most-len(note), 0)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + note
}
