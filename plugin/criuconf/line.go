package criuconf

import (
	"errors"
	"fmt"
	"iter"
	"regexp"
	"strings"
	"sync"
)

// LineError is a line that CRIU would refuse, or that is not understood here.
type LineError struct {
	Line int // from 1
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap returns the reason.
func (e *LineError) Unwrap() error { return e.Err }

// Script is an action-script line.
type Script struct {
	Line int // from 1
	Path string
}

// Scripts returns the action-script lines of a file, in its order. The error is
// a *LineError.
func Scripts(text []byte) ([]Script, error) {
	var scripts []Script
	for number, raw := range lines(text) {
		path, is, err := script(raw)
		if err != nil {
			return nil, &LineError{Line: number, Err: err}
		}
		if is {
			scripts = append(scripts, Script{Line: number, Path: path})
		}
	}
	return scripts, nil
}

// lines counts from 1. Each line keeps its newline: only the last can lack it.
func lines(text []byte) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		number := 0
		for line := range strings.Lines(string(text)) {
			if number++; !yield(number, line) {
				return
			}
		}
	}
}

// script returns the path of a line that is an action-script.
func script(raw string) (path string, is bool, err error) {
	option, value, err := split(raw)
	if err != nil {
		return "", false, err
	}
	option, inOption, attached := strings.Cut(option, "=") // as getopt_long takes it
	if !isActionScript(option) {
		return "", false, nil
	}
	if attached && value != "" {
		return "", false, fmt.Errorf("action-script has two values, %q and %q", inOption, value)
	}
	path = inOption + value
	switch {
	case path == "":
		return "", false, errors.New("action-script has no value: criu takes the next line for it")
	case strings.HasSuffix(path, "\r"):
		return "", false, errors.New("action-script ends in a carriage return, which criu takes for a part of the path")
	case strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return "", false, fmt.Errorf("action-script has a control character, which criu takes for a part of the path: %q", path)
	}
	return path, true, nil
}

// isActionScript knows the abbreviations of getopt_long too: no other option
// begins with "ac".
func isActionScript(option string) bool {
	const full, shortest = "action-script", len("ac")
	return len(option) >= shortest && strings.HasPrefix(full, option)
}

var optionForm = form(`^[A-Za-z][A-Za-z0-9-]*(=.*)?$`)

// form compiles an expression when it is first asked for: most starts of the
// binary are CRIU's, for the hook, which has no use for it.
func form(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}

// space is what isspace(3) takes for it within a line.
const space = " \t\r\v\f"

// split splits a line as parse_statement in criu/config.c does. Option and value
// are empty where there is none.
func split(raw string) (option, value string, err error) {
	line := strings.TrimLeft(strings.TrimSuffix(raw, "\n"), space)
	if strings.ContainsRune(line, 0) {
		return "", "", errors.New("a zero byte, where criu ends the line")
	}
	if line == "" || line[0] == '#' {
		return "", "", nil
	}
	end := strings.IndexByte(line, ' ') // a tab counts only where there is no blank at all
	if end < 0 {
		end = strings.IndexByte(line, '\t')
	}
	option = line
	if end >= 0 {
		option = line[:end]
		value, err = valueOf(strings.TrimLeft(line[end+1:], space))
	}
	if err == nil && !optionForm().MatchString(option) {
		err = fmt.Errorf("%q is no option of criu", option)
	}
	return option, value, err
}

// valueOf takes a value from what follows an option.
func valueOf(rest string) (string, error) {
	var after string
	if quoted, ok := strings.CutPrefix(rest, `"`); ok {
		end := closingQuote(quoted)
		if end < 0 {
			return "", errors.New("a quote is not closed")
		}
		rest, after = quoted[:end], quoted[end+1:]
	} else {
		rest, _, _ = strings.Cut(rest, "#")
		if end := strings.IndexByte(rest, ' '); end >= 0 {
			rest, after = rest[:end], rest[end:]
		}
	}
	after = strings.TrimLeft(after, space)
	if after != "" && after[0] != '#' {
		return "", fmt.Errorf("more than one value: %q", after)
	}
	rest, _, _ = strings.Cut(strings.ReplaceAll(rest, `\"`, `"`), "#") // within quotes too
	return rest, nil
}

// closingQuote is where the quoted text ends, or -1. A quote right at its begin
// is an empty value; a backslash keeps any other from closing.
func closingQuote(text string) int {
	for i := range len(text) {
		if text[i] == '"' && (i == 0 || text[i-1] != '\\') {
			return i
		}
	}
	return -1
}
