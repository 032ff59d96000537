package catalog

import (
	"cmp"
	"math"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"paddock/internal/errs"
	"paddock/internal/tenant"
	pb "paddock/proto/paddock/v1"
)

// Maxima bound what a tenant's policy may say; see tenant.Maxima.
type Maxima = tenant.Maxima

// maxRegions is how many regions a policy may name.
const maxRegions = 16

// labelForm is what names of regions and trust classes look like.
var labelForm = regexp.MustCompile(`^[A-Za-z0-9._-]{1,63}$`)

// maxRuleBytes is of one egress rule: a name of 253 bytes, and a port.
const maxRuleBytes = 260

// mergePolicy returns base with the fields that patch sets replaced whole. What either does not know is kept.
func mergePolicy(base, patch *pb.Policy) *pb.Policy {
	out := &pb.Policy{}
	if base != nil {
		out = proto.Clone(base).(*pb.Policy)
	}
	if patch == nil {
		return out
	}
	to := out.ProtoReflect()
	proto.Clone(patch).ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		to.Set(f, v)
		return true
	})
	return out
}

// burstSeconds of the rate may come at once.
const burstSeconds = tenant.DefaultRateBurst / tenant.DefaultRatePerSecond

// resolvePolicy returns the policy that p means: its set fields over the defaults, as far as m allows those. It judges nothing.
func resolvePolicy(p *pb.Policy, m *Maxima) tenant.Policy {
	out := tenant.DefaultPolicy()
	m.Bound(&out)
	if p == nil {
		return out
	}
	if p.Isolation != nil {
		out.Isolation = tenant.Isolation(*p.Isolation)
	}
	setDuration(&out.Timeout, p.Timeout)
	setDuration(&out.MaxTimeout, p.MaxTimeout)
	set(&out.SourceBytes, p.SourceBytes)
	set(&out.InputBytes, p.InputBytes)
	set(&out.OutputBytes, p.OutputBytes)
	set(&out.LogBytes, p.LogBytes)
	setInt(&out.Concurrency, p.Concurrency)
	set(&out.RatePerSecond, p.RatePerSecond)
	if p.RatePerSecond != nil { // two seconds' worth, as by default, unless it is stated
		out.RateBurst = max(1, int(min(burstSeconds*out.RatePerSecond, math.MaxInt32)))
	}
	setInt(&out.RateBurst, p.RateBurst)
	setInt(&out.CallsPerContainer, p.CallsPerContainer)
	setInt(&out.MaxContainers, p.MaxContainers)
	set(&out.MemoryBytes, p.MemoryBytes)
	setInt(&out.CPUMillis, p.CpuMillis)
	setInt(&out.MaxFunctions, p.MaxFunctions)
	setInt(&out.MaxPipelines, p.MaxPipelines)
	out.PipelineTimeout = min(out.PipelineTimeout, out.MaxTimeout) // who states a short maximum need not state both
	setDuration(&out.PipelineTimeout, p.PipelineTimeout)
	setDuration(&out.IdleTTL, p.IdleTtl)
	setDuration(&out.MaxLife, p.MaxLife)
	set(&out.MaxCalls, p.MaxCalls)
	setDuration(&out.DrainTimeout, p.DrainTimeout)
	setDuration(&out.FreezeAfter, p.FreezeAfter)
	setInt(&out.ClaimBurst, p.ClaimBurst)
	set(&out.ClaimsPerSecond, p.ClaimsPerSecond)
	setDuration(&out.LogRetention, p.LogRetention)
	set(&out.LogKeptBytes, p.LogKeptBytes)
	setInt(&out.RecordInputs, p.RecordInputs)
	set(&out.TrustClass, p.TrustClass)
	out.Regions = p.GetRegions().GetNames()
	out.Egress = p.GetEgress().GetHosts()
	out.EgressPrivate = p.GetEgressPrivate().GetHosts()
	out.Hosts = p.GetHosts().GetHosts()
	for _, in := range p.GetInject().GetInjections() {
		out.Inject = append(out.Inject, tenant.Injection{
			Host: in.GetHost(), Header: in.GetHeader(), Prefix: in.GetPrefix(), Secret: in.GetSecret(),
		})
	}
	return out
}

// effectivePolicy is what a stored policy is good for: it may have been within other maxima once.
func effectivePolicy(p *pb.Policy, m *Maxima) tenant.Policy {
	out := resolvePolicy(p, m)
	m.Bound(&out)
	return out
}

// boundedPolicy is p with each number that it sets lowered to what m allows now: what was stored under other maxima does not stand
// in the way of changes that leave it as it is.
func boundedPolicy(p *pb.Policy, m *Maxima) *pb.Policy {
	if p == nil {
		return nil
	}
	effective := effectivePolicy(p, m)
	bounded, out := showPolicy(&effective).ProtoReflect(), proto.Clone(p).(*pb.Policy)
	p.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
		out.ProtoReflect().Set(f, bounded.Get(f))
		return true
	})
	return out
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

func setInt(to *int, from *int32) {
	if from != nil {
		*to = int(*from)
	}
}

func setDuration(to *time.Duration, from *durationpb.Duration) {
	if from != nil {
		*to = from.AsDuration()
	}
}

// showPolicy returns p with every field set.
func showPolicy(p *tenant.Policy) *pb.Policy {
	isolation, inject := string(p.Isolation), &pb.Injections{}
	for _, in := range p.Inject {
		inject.Injections = append(inject.Injections, &pb.Injection{Host: in.Host, Header: in.Header, Prefix: in.Prefix, Secret: in.Secret})
	}
	return &pb.Policy{
		Isolation: &isolation, Timeout: durationpb.New(p.Timeout), MaxTimeout: durationpb.New(p.MaxTimeout),
		SourceBytes: &p.SourceBytes, InputBytes: &p.InputBytes, OutputBytes: &p.OutputBytes, LogBytes: &p.LogBytes,
		Concurrency: ptr32(p.Concurrency), RatePerSecond: &p.RatePerSecond, RateBurst: ptr32(p.RateBurst),
		CallsPerContainer: ptr32(p.CallsPerContainer), MaxContainers: ptr32(p.MaxContainers),
		MemoryBytes: &p.MemoryBytes, CpuMillis: ptr32(p.CPUMillis),
		MaxFunctions: ptr32(p.MaxFunctions), MaxPipelines: ptr32(p.MaxPipelines), PipelineTimeout: durationpb.New(p.PipelineTimeout),
		IdleTtl: durationpb.New(p.IdleTTL), MaxLife: durationpb.New(p.MaxLife),
		MaxCalls: &p.MaxCalls, DrainTimeout: durationpb.New(p.DrainTimeout), FreezeAfter: durationpb.New(p.FreezeAfter),
		ClaimBurst: ptr32(p.ClaimBurst), ClaimsPerSecond: &p.ClaimsPerSecond,
		Egress: &pb.Hosts{Hosts: p.Egress}, EgressPrivate: &pb.Hosts{Hosts: p.EgressPrivate},
		Hosts:  &pb.Hosts{Hosts: p.Hosts},
		Inject: inject, TrustClass: &p.TrustClass, Regions: &pb.Names{Names: p.Regions},
		LogRetention: durationpb.New(p.LogRetention), LogKeptBytes: &p.LogKeptBytes, RecordInputs: ptr32(p.RecordInputs),
	}
}

func ptr32(n int) *int32 {
	v := int32(n)
	return &v
}

// checkPolicy says whether the fields that are set in patch, and what they make of the whole policy, are within m.
// checkRule judges an egress rule, checkInject all injections.
func checkPolicy(patch *pb.Policy, whole tenant.Policy, m Maxima, checkRule func(string) error, checkInject func([]tenant.Injection) error) error {
	var c policyChecker
	patch.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if d, ok := v.Interface().(protoreflect.Message); ok {
			if d, ok := d.Interface().(*durationpb.Duration); ok && d.CheckValid() != nil {
				c.fail("%s is not a valid duration", f.Name())
			}
		}
		return true
	})
	switch whole.Isolation {
	case tenant.IsolationAny, tenant.IsolationGVisor, tenant.IsolationRunc:
	default:
		c.fail("isolation %.40q: use gvisor, runc, or nothing for the pool's own", whole.Isolation)
	}
	c.duration("max_timeout", whole.MaxTimeout, m.Timeout)
	c.duration("timeout", whole.Timeout, min(whole.MaxTimeout, m.Timeout))
	c.number("source_bytes", float64(whole.SourceBytes), 1, float64(m.SourceBytes))
	c.number("input_bytes", float64(whole.InputBytes), 1, float64(m.BodyBytes))
	c.number("output_bytes", float64(whole.OutputBytes), 1, float64(m.BodyBytes))
	c.number("log_bytes", float64(whole.LogBytes), 0, float64(m.LogBytes))
	c.number("concurrency", float64(whole.Concurrency), 1, float64(m.Concurrency))
	c.number("rate_per_second", whole.RatePerSecond, 0.001, m.RatePerSecond)
	c.number("rate_burst", float64(whole.RateBurst), 1, 2*m.RatePerSecond)
	c.number("calls_per_container", float64(whole.CallsPerContainer), 1, float64(m.CallsPerContainer))
	c.number("max_containers", float64(whole.MaxContainers), 1, float64(m.MaxContainers))
	c.number("memory_bytes", float64(whole.MemoryBytes), tenant.LeastMemoryBytes, float64(m.MemoryBytes))
	c.number("cpu_millis", float64(whole.CPUMillis), tenant.LeastCPUMillis, float64(m.CPUMillis))
	c.number("max_functions", float64(whole.MaxFunctions), 0, float64(m.MaxFunctions))
	c.number("max_pipelines", float64(whole.MaxPipelines), 0, float64(m.MaxPipelines))
	c.duration("pipeline_timeout", whole.PipelineTimeout, min(whole.MaxTimeout, m.Timeout))
	c.duration("idle_ttl", whole.IdleTTL, m.Life)
	c.duration("max_life", whole.MaxLife, m.Life)
	c.number("max_calls", float64(whole.MaxCalls), 0, math.MaxInt64)
	c.duration("drain_timeout", whole.DrainTimeout, m.DrainTimeout)
	c.duration("freeze_after", whole.FreezeAfter, m.Life)
	c.number("claim_burst", float64(whole.ClaimBurst), 1, m.Claims)
	c.number("claims_per_second", whole.ClaimsPerSecond, 0.001, m.Claims)
	c.duration("log_retention", whole.LogRetention, m.LogRetention)
	c.number("log_kept_bytes", float64(whole.LogKeptBytes), 0, float64(m.LogKeptBytes))
	c.number("record_inputs", float64(whole.RecordInputs), 0, float64(m.RecordInputs))
	c.lists(patch, &whole, &m, checkRule, checkInject)
	return c.err
}

// lists judges those that are set in patch; others were judged when they were.
func (c *policyChecker) lists(patch *pb.Policy, whole *tenant.Policy, m *Maxima, checkRule func(string) error, checkInject func([]tenant.Injection) error) {
	for _, label := range append(slices.Clone(whole.Regions), cmp.Or(whole.TrustClass, "x")) {
		if !labelForm.MatchString(label) {
			c.fail("label %.80q: use 1 to 63 of a-z, A-Z, 0-9, '.', '_' and '-' for regions and trust classes", label)
		}
	}
	if n := len(whole.Regions); n > maxRegions {
		c.fail("regions has %d names: at most %d", n, maxRegions)
	}
	if patch.Egress != nil {
		c.rules("egress", whole.Egress, m.EgressRules, checkRule)
	}
	if patch.EgressPrivate != nil {
		c.rules("egress_private", whole.EgressPrivate, m.EgressRules, checkRule)
	}
	if patch.Inject == nil {
		return
	}
	if n := len(whole.Inject); n > m.Injections {
		c.fail("inject has %d entries: at most %d", n, m.Injections)
	} else if err := checkInject(whole.Inject); err != nil {
		c.fail("inject: %v", err)
	}
}

// policyChecker keeps the first fault.
type policyChecker struct{ err error }

func (c *policyChecker) fail(format string, args ...any) {
	if c.err == nil {
		c.err = errs.New(errs.Invalid, "policy: "+format, args...)
	}
}

func (c *policyChecker) duration(field string, d, most time.Duration) {
	if d <= 0 || d > most {
		c.fail("%s is %v: it must be above 0 and at most %v", field, d, most)
	}
}

func (c *policyChecker) number(field string, n, least, most float64) {
	if !(n >= least && n <= most) { // NaN too
		show := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
		c.fail("%s is %s: it must be from %s to %s", field, show(n), show(least), show(most))
	}
}

func (c *policyChecker) rules(field string, rules []string, most int, check func(string) error) {
	if len(rules) > most {
		c.fail("%s has %d rules: at most %d", field, len(rules), most)
	}
	for _, r := range rules {
		if len(r) > maxRuleBytes {
			c.fail("%s: a rule has %d bytes: at most %d", field, len(r), maxRuleBytes)
		} else if err := check(r); err != nil {
			c.fail("%s: %v", field, err)
		}
	}
}

// checkComplete is the least that injections must be: each names a host, a header and a secret.
func checkComplete(all []tenant.Injection) error {
	for _, in := range all {
		if in.Host == "" || in.Header == "" || in.Secret == "" {
			return errs.New(errs.Invalid, "each needs a host, a header and a secret")
		}
	}
	return nil
}

// checkHostPort is the least that an egress rule must be: "host:port", "*.example.com:443".
func checkHostPort(rule string) error {
	host, port, err := net.SplitHostPort(rule)
	if err != nil {
		return errs.New(errs.Invalid, "use host:port, as api.example.com:443")
	}
	n, err := strconv.Atoi(port)
	if host == "" || strings.ContainsAny(host, " \t\r\n/@") || err != nil || n < 1 || n > 65535 {
		return errs.New(errs.Invalid, "use host:port with a port from 1 to 65535")
	}
	return nil
}
