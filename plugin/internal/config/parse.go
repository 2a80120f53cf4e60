package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// document is the file as it is written. Each value checks itself, because only
// the decoder knows the line.
type document struct {
	Neighbours    choice[neighbourNames] `toml:"neighbours"`
	NeighboursMax duration               `toml:"neighbours_max"`
	InPlace       choice[inPlaceNames]   `toml:"in_place"`
	Later         choice[laterNames]     `toml:"later"`
	Again         choice[againNames]     `toml:"again"`
	Existing      choice[existingNames]  `toml:"existing"`
	Method        choice[methodNames]    `toml:"method"`
	HostQueues    []hostQueue            `toml:"host_queues"`
}

// known is what each key takes, a string or a list of strings.
var known = map[string]struct {
	want string
	list bool
}{
	"neighbours":     {want: `"stop" or "ignore"`},
	"neighbours_max": {want: `a duration above zero such as "10s" or "1m30s"`},
	"in_place":       {want: `"refuse", "keep" or "rollback"`},
	"later":          {want: `"refuse" or "keep"`},
	"again":          {want: `"refuse", "keep" or "rollback"`},
	"existing":       {want: `"refuse" or "adopt"`},
	"method":         {want: `"auto", "copy" or "bpf"`},
	"host_queues":    {want: `a list of queues, each as "KEY:UID" such as "0x1234:1000"`, list: true},
}

// Parse is Load for content that was read already; path is what errors call it.
func Parse(path string, content []byte) (*Config, error) {
	if err := check(content); err != nil {
		return nil, fmt.Errorf("%s:%w", path, err)
	}
	var doc document
	decoder := toml.NewDecoder(bytes.NewReader(content)).DisallowUnknownFields()
	if err := decoder.Decode(&doc); err != nil {
		return nil, fmt.Errorf("%s:%w", path, explain(content, err))
	}
	c := Default()
	set(&c.Neighbours, doc.Neighbours.value)
	set(&c.InPlace, doc.InPlace.value)
	set(&c.Later, doc.Later.value)
	set(&c.Again, doc.Again.value)
	set(&c.Existing, doc.Existing.value)
	set(&c.Method, doc.Method.value)
	c.NeighboursMax = doc.NeighboursMax.value
	for _, q := range doc.HostQueues {
		c.HostQueues = append(c.HostQueues, q.value)
	}
	return c, nil
}

// set keeps the default where the file says nothing.
func set[T ~string](setting *T, value string) {
	if value != "" {
		*setting = T(value)
	}
}

// check finds keys that nobody knows and values of the wrong type.
func check(content []byte) (found error) {
	walk(content, func(p place) {
		if found == nil {
			found = checkPlace(p)
		}
	})
	return found
}

func checkPlace(p place) error {
	takes, ok := known[p.key]
	kind := unstable.String
	if takes.list && !p.element {
		kind = unstable.Array
	}
	switch {
	case !ok:
		return fmt.Errorf("%d: unknown key %q: known are %s", p.line, p.key, knownKeys)
	case p.kind != kind:
		return fmt.Errorf("%d: %s: want %s: not a value of type %s", p.line, p.key, takes.want, strings.ToLower(p.kind.String()))
	}
	return nil
}

const knownKeys = "neighbours, neighbours_max, in_place, later, again, existing, method and host_queues"

// explain puts the line, the key and what is allowed before the decoder's words.
func explain(content []byte, err error) error {
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		err = &strict.Errors[0]
	}
	wrong, ok := errors.AsType[*toml.DecodeError](err)
	if !ok {
		return fmt.Errorf(" %w", err)
	}
	line, column := wrong.Position()
	message := strings.TrimPrefix(wrong.Error(), "toml: ")
	key := keyAt(content, line, column)
	if takes, ok := known[key]; ok {
		return fmt.Errorf("%d: %s: want %s: %s", line, key, takes.want, message)
	}
	return fmt.Errorf("%d: %s", line, message)
}
