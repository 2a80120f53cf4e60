package criuconf

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ipc-cr/ipc-cr/nsenter/nstest"
)

func TestMain(m *testing.M) { nstest.Main(m) }

// understood are texts and the scripts that CRIU runs with them; the same table
// is put before CRIU itself. A and B stand for paths.
var understood = map[string]struct {
	text string
	want []Script
}{
	"empty":              {"", nil},
	"blank lines":        {"\n  \n\t\n", nil},
	"comments":           {"# one\n  # two\n#action-script A\n", nil},
	"other options":      {"tcp-close\nlog-file x.log # where\nghost-limit 4\n", nil},
	"plain":              {"action-script A\n", []Script{{1, "A"}}},
	"no final newline":   {"tcp-close\naction-script A", []Script{{2, "A"}}},
	"indented":           {" \t action-script A\n", []Script{{1, "A"}}},
	"several blanks":     {"action-script   A  \n", []Script{{1, "A"}}},
	"tab":                {"action-script\tA\n", []Script{{1, "A"}}},
	"comment after":      {"action-script A # mine\naction-script B#mine\n", []Script{{1, "A"}, {2, "B"}}},
	"quotes":             {"action-script \"A\"\n", []Script{{1, "A"}}},
	"quotes and comment": {"action-script \"A\" # mine\n", []Script{{1, "A"}}},
	"equals sign":        {"action-script=A\n", []Script{{1, "A"}}},
	"abbreviated":        {"action A\n", []Script{{1, "A"}}},
	"two":                {"action-script A\ntcp-close\naction-script B\n", []Script{{1, "A"}, {3, "B"}}},
	"twice the same":     {"action-script A\naction-script A\n", []Script{{1, "A"}, {2, "A"}}},
	"CRLF comments":      {"# one\r\n\r\naction-script A\n", []Script{{3, "A"}}},
	"CRLF after quotes":  {"action-script \"A\"\r\n", []Script{{1, "A"}}},
	"quoted blank":       {"log-file \"a b.log\"\naction-script A\n", []Script{{2, "A"}}},
	"escaped quotes":     {"log-file \"a\\\"b.log\"\naction-script A\n", []Script{{2, "A"}}},
}

func TestScripts(t *testing.T) {
	for name, c := range understood {
		got, err := Scripts([]byte(c.text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// What CRIU refuses or would take for something else is refused, with the line.
func TestNotUnderstood(t *testing.T) {
	for _, c := range []struct {
		text string
		line int
		says string
	}{
		{"tcp-close\naction-script\n", 2, "action-script has no value: criu takes the next line for it"},
		{"action-script # later\n", 1, "action-script has no value"},
		{"action-script \n", 1, "action-script has no value"},
		{"action-script \"\"\n", 1, "action-script has no value"},
		{"action-script=\n", 1, "action-script has no value"},
		{"action-script=/a /b\n", 1, `action-script has two values, "/a" and "/b"`},
		{"action-script /a /b\n", 1, `more than one value: "/b"`},
		{"action-script \"/a\" /b\n", 1, `more than one value: "/b"`},
		{"a b c d e\n", 1, `more than one value: "c d e"`},
		{"# one\n\nlog-file \"x\n", 3, "a quote is not closed"},
		{"log-file \"\n", 1, "a quote is not closed"},
		{"log-file \"x\\\"\n", 1, "a quote is not closed"},
		{"action-script /a\r\n", 1, "action-script ends in a carriage return, which criu takes for a part of the path"},
		{"action-script /a\t\n", 1, "action-script has a control character"},
		{"tcp-close\r\n", 1, `"tcp-close\r" is no option of criu`},
		{"tcp-close#now\n", 1, `"tcp-close#now" is no option of criu`},
		{"--tcp-close\n", 1, `"--tcp-close" is no option of criu`},
		{"action-script\t/a # mine\n", 1, `"action-script\t/a" is no option of criu`},
		{"\ufeff# mark\n", 1, `is no option of criu`},
		{"tcp-close\x00\n", 1, "a zero byte, where criu ends the line"},
	} {
		got, err := Scripts([]byte(c.text))
		wrong, ok := errors.AsType[*LineError](err)
		if !ok || wrong.Line != c.line || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %v, %v, want line %d: %q", c.text, got, err, c.line, c.says)
		}
		if text, again := Add([]byte(c.text), "/x/"+Name); fmt.Sprint(again) != fmt.Sprint(err) {
			t.Errorf("%q became %q, %v, want %v", c.text, text, again, err)
		}
	}
}
