package criuconf

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
)

const hook = "/usr/local/bin/" + Name

func TestAdd(t *testing.T) {
	const line = "action-script " + hook + "\n"
	for name, c := range map[string]struct{ text, want string }{
		"empty":            {"", line},
		"comments":         {"# one\n", line + "# one\n"},
		"no final newline": {"tcp-close", line + "tcp-close"},
		"blanks at end":    {"tcp-close\n  ", line + "tcp-close\n  "},
		"CRLF":             {"# one\r\n\r\n", line + "# one\r\n\r\n"},
		"no value":         {"log-file\n", line + "log-file\n"},
		"foreign":          {"action-script /opt/net.sh\n", line + "action-script /opt/net.sh\n"},
		"there":            {"tcp-close\n" + line, "tcp-close\n" + line},
		"there in quotes":  {`action-script "` + hook + `"`, `action-script "` + hook + `"`},
		"there, commented": {"#" + line, line + "#" + line},
		"there twice":      {line + line, line + line},
	} {
		got, err := Add([]byte(c.text), hook)
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
		again, err := Add(got, hook)
		if err != nil || !bytes.Equal(again, got) {
			t.Errorf("%s again: %q, %v", name, again, err)
		}
	}
}

func TestAddRefuses(t *testing.T) {
	got, err := Add([]byte("tcp-close\naction-script /opt/bin/"+Name+"\n"), hook)
	wrong, ok := errors.AsType[*LineError](err)
	if !ok || wrong.Line != 2 || !strings.Contains(err.Error(), "/opt/bin/"+Name+", the hook of another ipc-cr") {
		t.Errorf("%q, %v", got, err)
	}
	const cannot, longer = " cannot stand in a configuration file of criu: an absolute path of letters, digits and /._+@:,~- can", " is not the shortest form of the path"
	for path, says := range map[string]string{
		"": cannot, "hook": cannot, "/a b/hook": cannot, "/a#b": cannot, "/a\"b": cannot, "/a\nb": cannot, "/a\\b": cannot, "/ä": cannot,
		"/a/../hook": longer, "/a//hook": longer, "/a/": longer,
	} {
		want := strconv.Quote(path) + says
		if got, err := Add(nil, path); fmt.Sprint(err) != want {
			t.Errorf("%q, %v, want %s", got, err, want)
		}
		if got, err := New(path); fmt.Sprint(err) != want {
			t.Errorf("New: %q, %v, want %s", got, err, want)
		}
	}
}

func TestRemove(t *testing.T) {
	const line = "action-script " + hook + "\n"
	made, err := New(hook)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text, want string
		gone       bool
	}{
		"empty":                {"", "", false},
		"not there":            {"tcp-close\n", "tcp-close\n", false},
		"alone":                {line, "", false},
		"made here":            {string(made), "", true},
		"made here, CRLF":      {strings.ReplaceAll(string(made), "\n", "\r\n"), "", true},
		"made here and edited": {string(made) + "tcp-close\n", "tcp-close\n", false},
		"edited above":         {"tcp-close\n" + string(made), "tcp-close\n", false},
		"foreign":              {line + "action-script /opt/net.sh\n", "action-script /opt/net.sh\n", false},
		"another ipc-cr's":     {"action-script /opt/" + Name + "\n" + line, "action-script /opt/" + Name + "\n", false},
		"longer path":          {"action-script " + hook + "2\n", "action-script " + hook + "2\n", false},
		"commented":            {"# " + line, "# " + line, false},
		"by hand":              {"tcp-close\n  action-script \"" + hook + "\" # ours", "tcp-close\n", false},
		"equals sign":          {"action=" + hook + "\n", "", false},
		"twice":                {line + "tcp-close\n" + line, "tcp-close\n", false},
		"carriage return":      {"action-script " + hook + "\r\n# x\r\n", "# x\r\n", false},
		"not understood":       {line + "log-file \"x\n\x00\xff\n", "log-file \"x\n\x00\xff\n", false},
	} {
		got, gone := Remove([]byte(c.text), hook)
		if string(got) != c.want || gone != c.gone {
			t.Errorf("%s: %q, %t, want %q, %t", name, got, gone, c.want, c.gone)
		}
	}
}

// Whatever the text, nothing panics; what Add adds is seen by Scripts, and
// Remove takes away nothing else.
func FuzzAddRemove(f *testing.F) {
	for _, c := range understood {
		f.Add([]byte(c.text))
	}
	f.Add([]byte(madeHere))
	f.Add([]byte(madeHere + "action-script " + hook + "\n"))
	f.Add([]byte("action-script \"" + hook + "\\\"\" #\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		before, _ := Remove(text, hook)
		again, _ := Remove(before, hook)
		if !bytes.Equal(again, before) {
			t.Fatalf("removed twice: %q, then %q", before, again)
		}
		added, err := Add(text, hook)
		if err != nil {
			return
		}
		scripts, err := Scripts(added)
		if err != nil {
			t.Fatalf("%q: %v", added, err)
		}
		found := false
		for _, s := range scripts {
			found = found || s.Path == hook
		}
		if !found {
			t.Fatalf("not in %q", added)
		}
		if bytes.Equal(added, text) { // it was there before
			return
		}
		if rest, gone := Remove(added, hook); !bytes.Equal(rest, text) || gone {
			t.Fatalf("%q came back as %q, %t", text, rest, gone)
		}
	})
}
