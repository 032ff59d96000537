// Package tenant holds who is isolated, limited and charged: the tenant's id and the policy it is served under. It does
// no I/O and knows nothing of how policies are stored.
package tenant

import (
	"fmt"
	"regexp"
	"time"
)

// ID names a tenant: 1 to 63 of a-z, 0-9 and '-', starting with a letter or digit. Make one with ParseID.
type ID string

var idForm = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)

// ParseID checks s and returns it as an ID.
func ParseID(s string) (ID, error) {
	if !idForm.MatchString(s) {
		return "", fmt.Errorf("tenant %.80q: use 1 to 63 of a-z, 0-9 and '-', starting with a letter or digit", s)
	}
	return ID(s), nil
}

func (id ID) String() string { return string(id) }

// Isolation is what stands between a container's code and the host's kernel.
type Isolation string

// The isolations. IsolationAny lets the pool's own decide.
const (
	IsolationAny    Isolation = ""
	IsolationGVisor Isolation = "gvisor" // runsc: a kernel in user space
	IsolationRunc   Isolation = "runc"   // namespaces, seccomp, the host's kernel
)

// Defaults of a Policy and the operator's maxima. Sizes are bytes.
const (
	DefaultTimeout           = 10 * time.Second
	MaxTimeout               = 300 * time.Second
	DefaultStreamIdle        = 60 * time.Second
	DefaultSourceBytes       = 1 << 20
	DefaultInputBytes        = 6 << 20
	DefaultOutputBytes       = 6 << 20
	DefaultLogBytes          = 64 << 10 // per call
	DefaultMemoryBytes       = 128 << 20
	DefaultCPUMillis         = 1000
	DefaultConcurrency       = 100
	DefaultRatePerSecond     = 1000
	DefaultRateBurst         = 2000
	DefaultCallsPerContainer = 32
	DefaultMaxContainers     = 4
	DefaultIdleTTL           = 5 * time.Minute
	DefaultMaxLife           = time.Hour
	DefaultDrainTimeout      = 30 * time.Second
	DefaultFreezeAfter       = 10 * time.Second
	DefaultMaxFunctions      = 1000
	DefaultMaxPipelines      = 100
	DefaultPipelineTimeout   = 20 * time.Second
	DefaultLogRetention      = 24 * time.Hour
	DefaultLogKeptBytes      = 1 << 20
	DefaultClaimBurst        = 4
	DefaultClaimsPerSecond   = 1.0
)

// Policy is what one tenant may use and how its containers are recycled. A *Policy that was handed out is never changed:
// a new one replaces it. Zero MaxCalls means no limit; every other field is set (see DefaultPolicy).
type Policy struct {
	Suspended         bool
	Isolation         Isolation
	Timeout           time.Duration // of a call that names none
	MaxTimeout        time.Duration // a call that asks for more is invalid
	SourceBytes       int64
	InputBytes        int64 // collected inputs; streamed bodies are not limited
	OutputBytes       int64
	LogBytes          int64 // per call
	Concurrency       int   // calls at once
	RatePerSecond     float64
	RateBurst         int
	CallsPerContainer int
	MaxContainers     int
	MemoryBytes       int64 // of a container: what code may use, without what the isolation needs on top
	CPUMillis         int   // of a container, in thousandths of a CPU
	MaxFunctions      int
	MaxPipelines      int
	PipelineTimeout   time.Duration // of a whole pipeline run that names none; at most MaxTimeout
	IdleTTL           time.Duration // since the last call ended
	MaxLife           time.Duration // leak guard; ± 10 % jitter
	MaxCalls          int64         // 0 = no limit
	DrainTimeout      time.Duration
	FreezeAfter       time.Duration
	LogRetention      time.Duration // of log lines and calls, in the controllers' memory
	LogKeptBytes      int64         // of them, at each controller; 0 = none
	RecordInputs      int           // the newest inputs of calls that are kept for who may deploy; 0 = none
	ClaimBurst        int
	ClaimsPerSecond   float64
	Egress            []string // allow-list: "host:port", "*.example.com:443"; empty = no egress
	EgressPrivate     []string // special-purpose destinations that an operator allows by name, same form
	Inject            []Injection
	Hosts             []string // names at which the public functions answer, in lower case and ASCII
	// TrustClass: only controllers of this class run the tenant's code, and they run nobody else's; "" is a class as well.
	TrustClass string
	// Regions whose controllers may run it, in order of preference; empty: the router's own.
	Regions []string
}

// Injection is a header that is added, outside of the sandbox, to the requests of the tenant's code to one host, so that the
// code uses a secret which it never has. The code says http: and what it sends goes out as https:.
type Injection struct {
	Host   string // "api.example.com": http: on port 80 goes to 443; "api.example.com:8443": to that port
	Header string // "Authorization"
	Prefix string // "Bearer "; stands before the secret
	Secret string // name of one of the tenant's secrets; code is not given it any more
}

// DefaultPolicy returns the policy of a tenant about which nothing was said.
func DefaultPolicy() Policy {
	return Policy{
		Timeout: DefaultTimeout, MaxTimeout: MaxTimeout,
		SourceBytes: DefaultSourceBytes, InputBytes: DefaultInputBytes, OutputBytes: DefaultOutputBytes, LogBytes: DefaultLogBytes,
		Concurrency: DefaultConcurrency, RatePerSecond: DefaultRatePerSecond, RateBurst: DefaultRateBurst,
		CallsPerContainer: DefaultCallsPerContainer, MaxContainers: DefaultMaxContainers,
		MemoryBytes: DefaultMemoryBytes, CPUMillis: DefaultCPUMillis,
		MaxFunctions: DefaultMaxFunctions, MaxPipelines: DefaultMaxPipelines, PipelineTimeout: DefaultPipelineTimeout,
		IdleTTL: DefaultIdleTTL, MaxLife: DefaultMaxLife, DrainTimeout: DefaultDrainTimeout, FreezeAfter: DefaultFreezeAfter,
		LogRetention: DefaultLogRetention, LogKeptBytes: DefaultLogKeptBytes,
		ClaimBurst: DefaultClaimBurst, ClaimsPerSecond: DefaultClaimsPerSecond,
	}
}
