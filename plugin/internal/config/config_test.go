package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	full := &Config{
		Neighbours: IgnoreNeighbours, NeighboursMax: 90 * time.Second, InPlace: RollbackInPlace, Later: KeepLater,
		Again: RollbackAgain, Existing: AdoptExisting, Method: CopyMethod,
	}
	some := Default()
	some.InPlace = KeepInPlace
	said := Default()
	said.InPlace = RefuseInPlace
	queues := Default()
	queues.HostQueues = HostQueues{{Key: 0x1234, UID: 1000}, {Key: 4242}, {Key: -2, UID: 4294967294}}
	for name, c := range map[string]struct {
		text string
		want *Config
	}{
		"empty":    {"", Default()},
		"comments": {"# nothing\n\n# neighbours = \"ignore\"\n", Default()},
		"some":     {`in_place = "keep"`, some},
		"defaults": {"neighbours = 'stop'\nlater = \"refuse\"\nagain = \"refuse\"\nexisting = \"refuse\"\n", Default()},
		"in place": {`in_place = "refuse"`, said},
		"full": {`neighbours = "ignore"
neighbours_max = "1m30s"
in_place = "rollback"
later = "keep"
again = "rollback"
existing = "adopt"
method = "copy"
`, full},
		"queues": {`host_queues = [
	"0x1234:1000", # the shop's
	"4242:0",
	'0xFFFFFFFE:4294967294'
]
`, queues},
		"no queues": {"host_queues = []", Default()},
		"CRLF":      {"neighbours = \"stop\"\r\nin_place = \"keep\"\r\n", some},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Parse("config.toml", []byte(c.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// Every error names the file, the line, the key and what is allowed.
func TestParseErrors(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`neighbours = "halt"`, `1: neighbours: want "stop" or "ignore": not "halt"`},
		{"\n\nneighbours = true", `3: neighbours: want "stop" or "ignore": `},
		{`neighbours = ""`, `1: neighbours: want "stop" or "ignore": not ""`},
		{`neighbours_max = "10"`, `1: neighbours_max: want a duration above zero such as "10s" or "1m30s": not "10"`},
		{`neighbours_max = "0s"`, `1: neighbours_max: want a duration above zero`},
		{`neighbours_max = "-1s"`, `1: neighbours_max: want a duration above zero`},
		{`neighbours_max = 10`, `1: neighbours_max: want a duration above zero`},
		{"later = \"keep\"\nin_place = \"Keep\"\n", `2: in_place: want "refuse", "keep" or "rollback": not "Keep"`},
		{`method = "fast"`, `1: method: want "auto", "copy" or "bpf": not "fast"`},
		{`later = "rollback"`, `1: later: want "refuse" or "keep": not "rollback"`},

		{"neighbors = \"stop\"", `1: unknown key "neighbors": known are neighbours, `},
		{"later = \"keep\"\nLater = \"keep\"\n", `2: `},
		{`host_queues = ["0x1234"]`, `1: host_queues: want a list of queues, each as "KEY:UID" such as "0x1234:1000": not "0x1234"`},
		{"host_queues = [\n\"0x1:0\",\n\"0x0:1000\"]", `3: host_queues: want a list of queues, each as "KEY:UID" such as "0x1234:1000": key 0 is that of every private queue`},
		{`host_queues = ["0:1000"]`, `key 0 is that of every private queue`},
		{`host_queues = ["0x100000000:0"]`, `not "0x100000000:0"`},
		{`host_queues = ["-1:0"]`, `not "-1:0"`},
		{`host_queues = ["+1:0"]`, `not "+1:0"`},
		{`host_queues = ["010:0"]`, `not "010:0"`},
		{`host_queues = ["0b1:0"]`, `not "0b1:0"`},
		{`host_queues = ["0x1_0:0"]`, `not "0x1_0:0"`},
		{`host_queues = ["0x1:4294967295"]`, `not "0x1:4294967295"`},
		{`host_queues = ["0x1:root"]`, `not "0x1:root"`},
		{`host_queues = ["0x1:0:0"]`, `not "0x1:0:0"`},
		{`host_queues = [":"]`, `not ":"`},
		{`host_queues = "0x1:0"`, `1: host_queues: want a list of queues, each as "KEY:UID" such as "0x1234:1000": not a value of type string`},
		{"host_queues = [\"0x1:0\",\n 4242]", `2: host_queues: want a list of queues, each as "KEY:UID" such as "0x1234:1000": not a value of type integer`},
		{`host_queues = [["0x1:0"]]`, `not a value of type array`},
		{`host_queues = [{key = 1}]`, `not a value of type inlinetable`},
		{"[[host_queues]]\n", `1: host_queues: want a list`},
		{"host_queues.0x1 = \"0\"\n", `1: unknown key "host_queues.0x1"`},
		{"[host]\nqueues = []\n", `1: unknown key "host": known are`},
		{"[[later]]\n", `1: later: want "refuse" or "keep": not a value of type`},
		{"later = { keep = \"keep\" }\n", `1: later: want "refuse" or "keep": not a value of type`},
		{"later = [\"keep\"]\n", `1: later: want "refuse" or "keep": not a value of type`},
		{"later = \"keep\"\nlater = \"keep\"\n", `2: `},
		{"later = \"keep\n", `1: `},
		{"later", `1: `},
		{"later = \"\xff\"", `1: `},
	} {
		got, err := Parse("config.toml", []byte(c.text))
		if err == nil {
			t.Errorf("%q: %+v", c.text, got)
			continue
		}
		message, named := strings.CutPrefix(err.Error(), "config.toml:")
		if !named || !strings.Contains(message, c.want) || strings.Contains(message, "\n") {
			t.Errorf("%q: %q does not say %q", c.text, err, c.want)
		}
	}
}

// Whatever the file holds, it is refused or read, and the error has a line.
func FuzzParse(f *testing.F) {
	f.Add("neighbours = \"stop\"\nneighbours_max = \"10s\"\n")
	f.Add("[[later]]\nuid=-1\n")
	f.Add("host_queues = [\"0x1234:1000\", # one\n'7:0']\n")
	f.Add("in_place.later=[[{}]]")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse("f", []byte(text))
		if (c == nil) == (err == nil) {
			t.Errorf("%v, %v", c, err)
		}
		if err != nil && (!strings.HasPrefix(err.Error(), "f:") || strings.HasPrefix(err.Error(), "f:0:")) {
			t.Errorf("no place: %v", err)
		}
	})
}
