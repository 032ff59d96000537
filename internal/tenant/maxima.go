package tenant

import "time"

// Maxima are an operator's upper bounds on what any tenant's policy may say. All fields are set; DefaultMaxima is what an operator
// who sets nothing has.
type Maxima struct {
	Timeout           time.Duration // of a call
	SourceBytes       int64
	BodyBytes         int64 // inputs and outputs, as far as they are collected
	LogBytes          int64 // per call
	Concurrency       int
	RatePerSecond     float64 // twice that may come at once
	CallsPerContainer int
	MaxContainers     int
	MemoryBytes       int64 // of a container
	CPUMillis         int   // of a container
	MaxFunctions      int
	MaxPipelines      int
	Life              time.Duration // idle TTL, max life, freeze after
	DrainTimeout      time.Duration
	Claims            float64 // burst and rate
	EgressRules       int     // of each list
	LogRetention      time.Duration
	LogKeptBytes      int64
	RecordInputs      int
	Injections        int
}

// LeastMemoryBytes and LeastCPUMillis of a container are what Node needs to answer in time at all.
const (
	LeastMemoryBytes = 32 << 20
	LeastCPUMillis   = 100
)

// DefaultMaxima returns the maxima of an operator who sets nothing. A body and a source together fit a gRPC message of
// 32 MiB.
func DefaultMaxima() Maxima {
	return Maxima{
		Timeout: MaxTimeout, SourceBytes: 8 << 20, BodyBytes: 22 << 20, LogBytes: 4 << 20,
		Concurrency: 10_000, RatePerSecond: 1e6, CallsPerContainer: 1024, MaxContainers: 256,
		MemoryBytes: 2 << 30, CPUMillis: 8000, MaxFunctions: 100_000, MaxPipelines: 10_000,
		Life: 7 * 24 * time.Hour, DrainTimeout: 10 * time.Minute, Claims: 1000, EgressRules: 256, Injections: 64,
		LogRetention: 30 * 24 * time.Hour, LogKeptBytes: 64 << 20, RecordInputs: 1000,
	}
}

// Bound lowers what p allows to what m does. Rules, injections and what is not a number stay.
func (m *Maxima) Bound(p *Policy) {
	p.MaxTimeout = min(p.MaxTimeout, m.Timeout)
	p.Timeout = min(p.Timeout, p.MaxTimeout)
	p.PipelineTimeout = min(p.PipelineTimeout, p.MaxTimeout)
	p.SourceBytes = min(p.SourceBytes, m.SourceBytes)
	p.InputBytes = min(p.InputBytes, m.BodyBytes)
	p.OutputBytes = min(p.OutputBytes, m.BodyBytes)
	p.LogBytes = min(p.LogBytes, m.LogBytes)
	p.Concurrency = min(p.Concurrency, m.Concurrency)
	p.RatePerSecond = min(p.RatePerSecond, m.RatePerSecond)
	p.RateBurst = min(p.RateBurst, max(1, int(2*m.RatePerSecond)))
	p.CallsPerContainer = min(p.CallsPerContainer, m.CallsPerContainer)
	p.MaxContainers = min(p.MaxContainers, m.MaxContainers)
	p.MemoryBytes = min(p.MemoryBytes, m.MemoryBytes)
	p.CPUMillis = min(p.CPUMillis, m.CPUMillis)
	p.MaxFunctions = min(p.MaxFunctions, m.MaxFunctions)
	p.MaxPipelines = min(p.MaxPipelines, m.MaxPipelines)
	p.IdleTTL, p.MaxLife, p.FreezeAfter = min(p.IdleTTL, m.Life), min(p.MaxLife, m.Life), min(p.FreezeAfter, m.Life)
	p.DrainTimeout = min(p.DrainTimeout, m.DrainTimeout)
	p.ClaimBurst = min(p.ClaimBurst, max(1, int(m.Claims)))
	p.ClaimsPerSecond = min(p.ClaimsPerSecond, m.Claims)
	p.LogRetention = min(p.LogRetention, m.LogRetention)
	p.LogKeptBytes = min(p.LogKeptBytes, m.LogKeptBytes)
	p.RecordInputs = min(p.RecordInputs, m.RecordInputs)
}
