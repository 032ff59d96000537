package main

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// The pipeline section: five rules of the kinds that logins have, as one call, against one of them alone.
const (
	pipelineSteps = 5
	pipelineBar   = 1.5 // of one rule's round trip
	pipelineInput = `{"user":{"user_id":"auth0|1","email":"ada@acme.example","email_verified":true,"app_metadata":{"roles":["editor"]}},` +
		`"context":{"clientID":"web","protocol":"oidc-basic-profile","request":{"ip":"192.0.2.7","geoip":{"country_code":"AT"}},"stats":{"loginsCount":7}}}`
)

// pipelineRules are in the order in which they run; the first is the one that runs alone.
var pipelineRules = [pipelineSteps]string{
	`function (user, context, callback) {
  context.idToken = context.idToken || {};
  context.idToken['https://acme.example/roles'] = (user.app_metadata || {}).roles || [];
  callback(null, user, context);
}`,
	`function (user, context, callback) {
  if (!user.email_verified) return callback(new UnauthorizedError('Verify your email first.'));
  callback(null, user, context);
}`,
	`function (user, context, callback) {
  const domain = user.email.split('@').pop().toLowerCase();
  if (!['acme.example', 'acme.test'].includes(domain)) return callback(new UnauthorizedError('Employees only.'));
  callback(null, user, context);
}`,
	`async function (user, context, callback) {
  if (context.stats.loginsCount < 2) user.app_metadata.fresh = true;
  callback(null, user, context);
}`,
	`function (user, context, callback) {
  context.accessToken = { scope: ['openid', 'profile'] };
  if (context.request.geoip.country_code !== 'AT') context.multifactor = { provider: 'any' };
  callback(null, user, context);
}`,
}

// pipeline compares the round trip of a pipeline of five rules with that of one rule.
func (b *bench) pipeline(ctx context.Context) error {
	return b.inEach(ctx, "pipeline", b.pipelineIn, "--min-ready", "1")
}

func (b *bench) pipelineIn(ctx context.Context, s *service) error {
	targets, err := s.pipelineTargets()
	if err != nil {
		return err
	}
	for _, t := range targets {
		if _, err := load(t, 8, time.Second); err != nil {
			return err
		}
	}
	one, many := map[string][]figures{}, map[string][]figures{}
	for round := range b.rounds {
		for i := range targets {
			t := targets[(round+i)%len(targets)]
			f, err := load(t, 1, b.burst/2)
			if err != nil {
				return err
			}
			one[t.name] = append(one[t.name], f)
			if f, err = load(t, 32, b.burst/2); err != nil {
				return err
			}
			many[t.name] = append(many[t.name], f)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	p50 := func(f figures) float64 { return us(f.p50) }
	for _, t := range targets[1:] {
		r := ratios(one[t.name], one[targets[0].name], p50)
		detail := fmt.Sprintf("(%.0f against %.0f us, spread %.2f-%.2f)", medianOf(one[t.name], p50), medianOf(one[targets[0].name], p50),
			slices.Min(r), slices.Max(r))
		name := fmt.Sprintf("pipeline: %s, p50 against one rule called alone, %s", t.name, s.isolation)
		if t.name == "five rules" {
			b.atMost(name, median(r), pipelineBar, " x", detail)
		} else {
			b.figure(name, median(r), " x", detail)
		}
		b.figure(fmt.Sprintf("pipeline: %s, 32 connections, calls/s against one rule, %s", t.name, s.isolation),
			median(ratios(many[t.name], many[targets[0].name], perSecond)), " x", fmt.Sprintf("(%.0f against %.0f/s)",
				medianOf(many[t.name], perSecond), medianOf(many[targets[0].name], perSecond)))
	}
	return nil
}

// pipelineTargets are one rule called as a function, and pipelines of one rule, of five, and of five each of which may be skipped,
// so that the state is copied and told to the host after each.
func (s *service) pipelineTargets() ([]target, error) {
	const tenant = "pipes"
	if err := s.tenant(tenant, map[string]any{"concurrency": 1000, "ratePerSecond": 1e6, "rateBurst": 1000000, "maxContainers": 1, "callsPerContainer": 64}); err != nil {
		return nil, err
	}
	var fail, skip []map[string]any
	for i, source := range pipelineRules {
		name := fmt.Sprintf("rule-%d", i)
		if err := s.manage("PUT", "/v1/functions/"+name, tenant, map[string]any{"source": []byte(source), "kind": "rule"}, nil); err != nil {
			return nil, err
		}
		fail = append(fail, map[string]any{"function": name})
		skip = append(skip, map[string]any{"function": name, "onFailure": "skip"})
	}
	key, err := s.invokeKey(tenant)
	if err != nil {
		return nil, err
	}
	targets := []target{{"one rule", s.http, request(s.http, "/v1/functions/rule-0/invoke", pipelineInput, "Authorization: Bearer "+key), nil}}
	for _, p := range []struct {
		name, what string
		steps      []map[string]any
	}{{"one", "one rule in a pipeline", fail[:1]}, {"five", "five rules", fail}, {"lenient", "five rules that may be skipped", skip}} {
		if err := s.manage("PUT", "/v1/pipelines/"+p.name, tenant, map[string]any{"pipeline": map[string]any{"steps": p.steps}}, nil); err != nil {
			return nil, err
		}
		targets = append(targets, target{p.what, s.http, request(s.http, "/v1/pipelines/"+p.name+"/invoke", pipelineInput, "Authorization: Bearer "+key), nil})
	}
	return targets, nil
}
