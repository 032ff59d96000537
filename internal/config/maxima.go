package config

import (
	"fmt"
	"time"

	"paddock/internal/tenant"
)

// Maxima bound what any tenant's policy may say: a larger value is refused, and one that was stored before counts as the maximum.
// The defaults are tenant.DefaultMaxima.
type Maxima struct {
	Timeout           time.Duration `yaml:"timeout"`             // of a call
	Source            Bytes         `yaml:"source"`              // the code of a function
	Body              Bytes         `yaml:"body"`                // inputs and answers, as far as they are collected
	Log               Bytes         `yaml:"log"`                 // of one call
	Concurrency       int           `yaml:"concurrency"`         // calls at once
	Rate              float64       `yaml:"rate"`                // calls per second; twice as many may come at once
	CallsPerContainer int           `yaml:"calls_per_container"` // calls at once in one container
	Containers        int           `yaml:"containers"`          // of a tenant
	Memory            Bytes         `yaml:"memory"`              // of a container
	CPU               int           `yaml:"cpu"`                 // of a container, thousandths of a CPU
	Functions         int           `yaml:"functions"`           // of a tenant
	Pipelines         int           `yaml:"pipelines"`           // of a tenant
	Life              time.Duration `yaml:"life"`                // idle TTL, longest life and time until an idle container freezes
	DrainTimeout      time.Duration `yaml:"drain_timeout"`       // how long calls may finish
	Claims            float64       `yaml:"claims"`              // claims of containers, at once and per second
	EgressRules       int           `yaml:"egress_rules"`        // of each list
	LogRetention      time.Duration `yaml:"log_retention"`
	LogKept           Bytes         `yaml:"log_kept"`      // lines and calls, at each controller
	RecordInputs      int           `yaml:"record_inputs"` // inputs that are kept
	Injections        int           `yaml:"injections"`    // secrets that are added outside
}

func defaultMaxima() Maxima {
	m := tenant.DefaultMaxima()
	return Maxima{
		Timeout:           m.Timeout,
		Source:            Bytes(m.SourceBytes),
		Body:              Bytes(m.BodyBytes),
		Log:               Bytes(m.LogBytes),
		Concurrency:       m.Concurrency,
		Rate:              m.RatePerSecond,
		CallsPerContainer: m.CallsPerContainer,
		Containers:        m.MaxContainers,
		Memory:            Bytes(m.MemoryBytes),
		CPU:               m.CPUMillis,
		Functions:         m.MaxFunctions,
		Pipelines:         m.MaxPipelines,
		Life:              m.Life,
		DrainTimeout:      m.DrainTimeout,
		Claims:            m.Claims,
		EgressRules:       m.EgressRules,
		LogRetention:      m.LogRetention,
		LogKept:           Bytes(m.LogKeptBytes),
		RecordInputs:      m.RecordInputs,
		Injections:        m.Injections,
	}
}

// Tenant is m in bytes and numbers.
func (m Maxima) Tenant() tenant.Maxima {
	return tenant.Maxima{
		Timeout:           m.Timeout,
		SourceBytes:       int64(m.Source),
		BodyBytes:         int64(m.Body),
		LogBytes:          int64(m.Log),
		Concurrency:       m.Concurrency,
		RatePerSecond:     m.Rate,
		CallsPerContainer: m.CallsPerContainer,
		MaxContainers:     m.Containers,
		MemoryBytes:       int64(m.Memory),
		CPUMillis:         m.CPU,
		MaxFunctions:      m.Functions,
		MaxPipelines:      m.Pipelines,
		Life:              m.Life,
		DrainTimeout:      m.DrainTimeout,
		Claims:            m.Claims,
		EgressRules:       m.EgressRules,
		LogRetention:      m.LogRetention,
		LogKeptBytes:      int64(m.LogKept),
		RecordInputs:      m.RecordInputs,
		Injections:        m.Injections,
	}
}

// check refuses a maximum with which no tenant could be served.
func (m Maxima) check() error {
	for _, c := range []struct {
		name   string
		value  float64
		least  float64
		sample string
	}{
		{"timeout", float64(m.Timeout), float64(time.Millisecond), "30s"},
		{"source", float64(m.Source), 1, "1MiB"},
		{"body", float64(m.Body), 1, "1MiB"},
		{"log", float64(m.Log), 0, "0"},
		{"concurrency", float64(m.Concurrency), 1, "1"},
		{"rate", float64(m.Rate), 1, "1"},
		{"calls_per_container", float64(m.CallsPerContainer), 1, "1"},
		{"containers", float64(m.Containers), 1, "1"},
		{"memory", float64(m.Memory), tenant.LeastMemoryBytes, "32MiB"},
		{"cpu", float64(m.CPU), tenant.LeastCPUMillis, "100"},
		{"functions", float64(m.Functions), 1, "1"},
		{"pipelines", float64(m.Pipelines), 1, "1"},
		{"life", float64(m.Life), float64(time.Millisecond), "30s"},
		{"drain_timeout", float64(m.DrainTimeout), float64(time.Millisecond), "30s"},
		{"claims", float64(m.Claims), 1, "1"},
		{"egress_rules", float64(m.EgressRules), 0, "0"},
		{"log_retention", float64(m.LogRetention), float64(time.Millisecond), "30s"},
		{"log_kept", float64(m.LogKept), 0, "0"},
		{"record_inputs", float64(m.RecordInputs), 0, "0"},
		{"injections", float64(m.Injections), 0, "0"},
	} {
		if !(c.value >= c.least) { // NaN too
			return fmt.Errorf("maxima.%s is too small for any tenant: use at least %s", c.name, c.sample)
		}
	}
	return nil
}
