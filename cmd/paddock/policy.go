package main

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"paddock/internal/config"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// policySetting is one flag of a policy: how it gets into the message, and how it is shown.
type policySetting struct {
	flag, help string
	value      any // its default, of the flag's type
	set        func(p *pb.Policy, v any)
	get        func(p *pb.Policy) string
}

// policySettings lists all of them once, for flags and for `tenants show`.
func policySettings() []policySetting {
	size := func(f, h string, def int64, set func(*pb.Policy, *int64), get func(*pb.Policy) int64) policySetting {
		return policySetting{f, h, config.Bytes(def), func(p *pb.Policy, v any) { n := int64(v.(config.Bytes)); set(p, &n) },
			func(p *pb.Policy) string { return config.Bytes(get(p)).String() }}
	}
	number := func(f, h string, def int, set func(*pb.Policy, *int32), get func(*pb.Policy) int32) policySetting {
		return policySetting{f, h, def, func(p *pb.Policy, v any) { n := int32(v.(int)); set(p, &n) },
			func(p *pb.Policy) string { return fmt.Sprint(get(p)) }}
	}
	span := func(f, h string, def time.Duration, set func(*pb.Policy, *durationpb.Duration), get func(*pb.Policy) *durationpb.Duration) policySetting {
		return policySetting{f, h, def, func(p *pb.Policy, v any) { set(p, durationpb.New(v.(time.Duration))) },
			func(p *pb.Policy) string { return get(p).AsDuration().String() }}
	}
	rate := func(f, h string, def float64, set func(*pb.Policy, *float64), get func(*pb.Policy) float64) policySetting {
		return policySetting{f, h, def, func(p *pb.Policy, v any) { n := v.(float64); set(p, &n) },
			func(p *pb.Policy) string { return fmt.Sprint(get(p)) }}
	}
	hosts := func(f, h string, set func(*pb.Policy, *pb.Hosts), get func(*pb.Policy) *pb.Hosts) policySetting {
		return policySetting{f, h, []string{}, func(p *pb.Policy, v any) { set(p, hostList(v.([]string))) },
			func(p *pb.Policy) string { return hostsText(get(p)) }}
	}
	return []policySetting{
		{"isolation", "gvisor, runc, or any", "any", func(p *pb.Policy, v any) { s := strings.TrimPrefix(v.(string), "any"); p.Isolation = &s },
			func(p *pb.Policy) string { return orDefault(p.GetIsolation(), "any") }},
		span("timeout", "of a call that names none", tenant.DefaultTimeout,
			func(p *pb.Policy, d *durationpb.Duration) { p.Timeout = d }, (*pb.Policy).GetTimeout),
		span("max-timeout", "the longest a call may ask for", tenant.MaxTimeout,
			func(p *pb.Policy, d *durationpb.Duration) { p.MaxTimeout = d }, (*pb.Policy).GetMaxTimeout),
		size("source-bytes", "largest source", tenant.DefaultSourceBytes,
			func(p *pb.Policy, n *int64) { p.SourceBytes = n }, (*pb.Policy).GetSourceBytes),
		size("input-bytes", "largest input", tenant.DefaultInputBytes,
			func(p *pb.Policy, n *int64) { p.InputBytes = n }, (*pb.Policy).GetInputBytes),
		size("output-bytes", "largest answer", tenant.DefaultOutputBytes,
			func(p *pb.Policy, n *int64) { p.OutputBytes = n }, (*pb.Policy).GetOutputBytes),
		size("log-bytes", "log of one call", tenant.DefaultLogBytes,
			func(p *pb.Policy, n *int64) { p.LogBytes = n }, (*pb.Policy).GetLogBytes),
		span("log-retention", "how long log lines and calls are kept", tenant.DefaultLogRetention,
			func(p *pb.Policy, d *durationpb.Duration) { p.LogRetention = d }, (*pb.Policy).GetLogRetention),
		size("log-kept", "log lines and calls that are kept", tenant.DefaultLogKeptBytes,
			func(p *pb.Policy, n *int64) { p.LogKeptBytes = n }, (*pb.Policy).GetLogKeptBytes),
		number("record-inputs", "newest inputs of calls that are kept in memory, for who may deploy (0: none)", 0,
			func(p *pb.Policy, n *int32) { p.RecordInputs = n }, (*pb.Policy).GetRecordInputs),
		number("concurrency", "calls at once", tenant.DefaultConcurrency,
			func(p *pb.Policy, n *int32) { p.Concurrency = n }, (*pb.Policy).GetConcurrency),
		rate("rate", "calls per second", tenant.DefaultRatePerSecond,
			func(p *pb.Policy, n *float64) { p.RatePerSecond = n }, (*pb.Policy).GetRatePerSecond),
		number("burst", "calls above the rate for a moment", tenant.DefaultRateBurst,
			func(p *pb.Policy, n *int32) { p.RateBurst = n }, (*pb.Policy).GetRateBurst),
		number("calls-per-container", "calls at once in one container", tenant.DefaultCallsPerContainer,
			func(p *pb.Policy, n *int32) { p.CallsPerContainer = n }, (*pb.Policy).GetCallsPerContainer),
		number("max-containers", "containers at once", tenant.DefaultMaxContainers,
			func(p *pb.Policy, n *int32) { p.MaxContainers = n }, (*pb.Policy).GetMaxContainers),
		size("memory", "of a container, for code", tenant.DefaultMemoryBytes,
			func(p *pb.Policy, n *int64) { p.MemoryBytes = n }, (*pb.Policy).GetMemoryBytes),
		number("cpu", "of a container, in thousandths of a CPU", tenant.DefaultCPUMillis,
			func(p *pb.Policy, n *int32) { p.CpuMillis = n }, (*pb.Policy).GetCpuMillis),
		number("max-functions", "deployed functions", tenant.DefaultMaxFunctions,
			func(p *pb.Policy, n *int32) { p.MaxFunctions = n }, (*pb.Policy).GetMaxFunctions),
		number("max-pipelines", "pipelines", tenant.DefaultMaxPipelines,
			func(p *pb.Policy, n *int32) { p.MaxPipelines = n }, (*pb.Policy).GetMaxPipelines),
		span("pipeline-timeout", "of a whole pipeline run that names none", tenant.DefaultPipelineTimeout,
			func(p *pb.Policy, d *durationpb.Duration) { p.PipelineTimeout = d }, (*pb.Policy).GetPipelineTimeout),
		span("idle-ttl", "a container without calls is recycled after this", tenant.DefaultIdleTTL,
			func(p *pb.Policy, d *durationpb.Duration) { p.IdleTtl = d }, (*pb.Policy).GetIdleTtl),
		span("max-life", "a container is recycled after this", tenant.DefaultMaxLife,
			func(p *pb.Policy, d *durationpb.Duration) { p.MaxLife = d }, (*pb.Policy).GetMaxLife),
		{"max-calls", "a container is recycled after so many calls (0: no limit)", 0,
			func(p *pb.Policy, v any) { n := int64(v.(int)); p.MaxCalls = &n },
			func(p *pb.Policy) string { return fmt.Sprint(p.GetMaxCalls()) }},
		span("drain-timeout", "time that calls in flight have to finish", tenant.DefaultDrainTimeout,
			func(p *pb.Policy, d *durationpb.Duration) { p.DrainTimeout = d }, (*pb.Policy).GetDrainTimeout),
		span("freeze-after", "a container without calls is frozen after this", tenant.DefaultFreezeAfter,
			func(p *pb.Policy, d *durationpb.Duration) { p.FreezeAfter = d }, (*pb.Policy).GetFreezeAfter),
		number("claim-burst", "containers taken from the pool at once", tenant.DefaultClaimBurst,
			func(p *pb.Policy, n *int32) { p.ClaimBurst = n }, (*pb.Policy).GetClaimBurst),
		rate("claims", "containers taken from the pool per second", tenant.DefaultClaimsPerSecond,
			func(p *pb.Policy, n *float64) { p.ClaimsPerSecond = n }, (*pb.Policy).GetClaimsPerSecond),
		hosts("egress", "host:port that its code may reach; repeat; *.example.com:443 takes all below; none: nothing",
			func(p *pb.Policy, h *pb.Hosts) { p.Egress = h }, (*pb.Policy).GetEgress),
		hosts("hosts", "host name at which its public functions answer; repeat",
			func(p *pb.Policy, h *pb.Hosts) { p.Hosts = h }, (*pb.Policy).GetHosts),
		hosts("egress-private", "host:port inside your own network that its code may reach; repeat",
			func(p *pb.Policy, h *pb.Hosts) { p.EgressPrivate = h }, (*pb.Policy).GetEgressPrivate),
		{"trust-class", "class of the controllers that run its code; they run nobody else's", "",
			func(p *pb.Policy, v any) { class := v.(string); p.TrustClass = &class }, (*pb.Policy).GetTrustClass},
		hosts("region", "region whose controllers may run its code, in order of preference; repeat; none: each router's own",
			func(p *pb.Policy, h *pb.Hosts) { p.Regions = &pb.Names{Names: h.GetHosts()} },
			func(p *pb.Policy) *pb.Hosts { return &pb.Hosts{Hosts: p.GetRegions().GetNames()} }),
		{"inject", `a secret for one host's requests, added outside: 'api.example.com Authorization: Bearer {SECRET}'; repeat`, &pb.Injections{},
			func(p *pb.Policy, v any) { p.Inject = v.(*pb.Injections) },
			func(p *pb.Policy) string { return injectionsText(p.GetInject()) }},
	}
}

// addPolicyFlags adds all flags of a policy; the function it returns gives a message with those that were set.
func addPolicyFlags(c *cobra.Command) func() (*pb.Policy, error) {
	f := c.Flags()
	read := map[string]func() any{}
	var wrong error
	settings := policySettings()
	for _, s := range settings {
		switch def := s.value.(type) {
		case string:
			v := f.String(s.flag, def, s.help)
			read[s.flag] = func() any { return *v }
		case int:
			v := f.Int(s.flag, def, s.help)
			read[s.flag] = func() any { return *v }
		case float64:
			v := f.Float64(s.flag, def, s.help)
			read[s.flag] = func() any { return *v }
		case time.Duration:
			v := f.Duration(s.flag, def, s.help)
			read[s.flag] = func() any { return *v }
		case []string:
			v := f.StringArray(s.flag, def, s.help)
			read[s.flag] = func() any { return *v }
		case *pb.Injections:
			v := f.StringArray(s.flag, nil, s.help)
			read[s.flag] = func() any {
				list, err := parseInjections(*v)
				wrong = err
				return list
			}
		case config.Bytes:
			v := def
			f.Var(&v, s.flag, s.help)
			read[s.flag] = func() any { return v }
		}
	}
	return func() (*pb.Policy, error) {
		p := &pb.Policy{}
		for _, s := range settings {
			if f.Changed(s.flag) {
				s.set(p, read[s.flag]())
			}
		}
		return p, wrong
	}
}

// hostList makes a list of the flag's values; a single empty one stands for none, to take an allow-list away.
func hostList(hosts []string) *pb.Hosts {
	if len(hosts) == 1 && hosts[0] == "" {
		hosts = nil
	}
	return &pb.Hosts{Hosts: hosts}
}

func hostsText(h *pb.Hosts) string {
	if len(h.GetHosts()) == 0 {
		return "none"
	}
	return strings.Join(h.GetHosts(), ", ")
}

// injectionForm is how an injection is written: a host, a header, and in its value a secret's name in braces at the end.
var injectionForm = regexp.MustCompile(`^(\S+) ([^:\s]+): ?([^{}]*)\{([^{}]+)\}$`)

// parseInjections reads the flag's values; a single empty one stands for none, to take all away.
func parseInjections(texts []string) (*pb.Injections, error) {
	list := &pb.Injections{}
	if len(texts) == 1 && texts[0] == "" {
		return list, nil
	}
	for _, text := range texts {
		m := injectionForm.FindStringSubmatch(text)
		if m == nil {
			return nil, fmt.Errorf("--inject %.200q: write it as 'HOST HEADER: VALUE{SECRET}', as 'api.example.com Authorization: Bearer {API_KEY}'", text)
		}
		list.Injections = append(list.Injections, &pb.Injection{Host: m[1], Header: m[2], Prefix: m[3], Secret: m[4]})
	}
	return list, nil
}

func injectionsText(list *pb.Injections) string {
	var all []string
	for _, in := range list.GetInjections() {
		all = append(all, fmt.Sprintf("%s %s: %s{%s}", in.GetHost(), in.GetHeader(), in.GetPrefix(), in.GetSecret()))
	}
	return orDefault(strings.Join(all, ", "), "none")
}

func policyRows(p *pb.Policy) (rows [][]string) {
	for _, s := range policySettings() {
		rows = append(rows, []string{s.flag, s.get(p)})
	}
	return rows
}
