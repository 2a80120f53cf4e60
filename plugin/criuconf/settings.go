package criuconf

import (
	"os"
	"time"

	"github.com/ipc-cr/ipc-cr/plugin/internal/config"
)

// Settings are those that the hook would run with.
type Settings struct {
	File   string  `json:"file"`
	Exists bool    `json:"exists"` // else they are the defaults
	OK     bool    `json:"ok"`
	Detail string  `json:"detail,omitempty"` // why they are not OK
	Values *Values `json:"values,omitempty"` // nil unless OK
}

// Values are the settings one by one, as the file names them.
type Values struct {
	Neighbours    string        `json:"neighbours"`
	NeighboursMax time.Duration `json:"neighbours_max_ns"` // 0: no limit
	InPlace       string        `json:"in_place"`          // "" where nothing is said
	Later         string        `json:"later"`
	Again         string        `json:"again"`
	Existing      string        `json:"existing"`
	Method        string        `json:"method"`
	HostQueues    []string      `json:"host_queues"` // "KEY:UID" each
}

// CheckSettings reads the hook's settings as the hook would.
func CheckSettings() Settings { return settings(config.Path) }

func settings(path string) Settings {
	s := Settings{File: path}
	if _, err := os.Lstat(path); err == nil {
		s.Exists = true
	}
	c, err := config.Load(path)
	if err != nil {
		s.Detail = err.Error()
		return s
	}
	s.OK = true
	s.Values = &Values{
		Neighbours: string(c.Neighbours), NeighboursMax: c.NeighboursMax,
		InPlace: string(c.InPlace), Later: string(c.Later), Again: string(c.Again), Existing: string(c.Existing), Method: string(c.Method), HostQueues: []string{},
	}
	for _, q := range c.HostQueues {
		s.Values.HostQueues = append(s.Values.HostQueues, q.String())
	}
	return s
}
