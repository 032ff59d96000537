package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	pb "paddock/proto/paddock/v1"
)

// healthCheck is act (a): an operator's script, sent by HTTP POST, logs in to the shop.
func (d *demo) healthCheck(ctx context.Context) error {
	d.title("(a) A health check logs in to a web application, by HTTP POST with curl")
	if _, err := d.up.cli(ctx, "tenants", "create", "ops", "--egress", d.appAddr, "--egress-private", d.appAddr); err != nil {
		return err
	}
	key, err := d.up.tenantKey(ctx, "ops", "invoke")
	if err != nil {
		return err
	}
	source, err := os.ReadFile(d.example("checks", "login.js"))
	if err != nil {
		return err
	}
	post, err := json.Marshal(map[string]any{"source": string(source), "name": "login.js", "timeout": "10s", "input": map[string]string{
		"url": "http://" + d.appAddr, "email": "jane.doe@acme.example", "password": "correct horse battery staple", "expect": "Welcome back, Jane",
	}})
	if err != nil {
		return err
	}

	answer, err := d.curl(ctx, key, "/v1/run", post)
	if err != nil {
		return err
	}
	var healthy struct {
		Healthy  bool
		Greeting string
		Steps    []struct {
			Name   string
			Status int
		}
	}
	json.Unmarshal(answer.body, &healthy)
	if err := d.check(answer.status == 200 && healthy.Healthy && len(healthy.Steps) == 3,
		"the shop is healthy: %d steps, %q, in %s (%s)%s", len(healthy.Steps), healthy.Greeting, answer.took, answer.header["server-timing"], answer.unless(200)); err != nil {
		return err
	}

	d.app.ForgetSessions(true)
	defer d.app.ForgetSessions(false)
	d.say("the shop is broken on purpose: it forgets its sessions")
	if answer, err = d.curl(ctx, key, "/v1/run", post); err != nil {
		return err
	}
	var problem struct {
		Kind   string
		Thrown struct{ Message string }
	}
	json.Unmarshal(answer.body, &problem)
	return d.check(answer.status == 500 && problem.Kind == "user_error" && strings.Contains(problem.Thrown.Message, "the session is not kept"),
		"unhealthy for the right reason: %q, in %s%s", problem.Thrown.Message, answer.took, answer.unless(500))
}

// rule is act (b): a customer's rule on a real user object, with the command line.
func (d *demo) rule(ctx context.Context) error {
	d.title("(b) A customer's rule runs on a user object, with the command line")
	if _, err := d.up.cli(ctx, "tenants", "create", "acme"); err != nil {
		return err
	}
	if _, err := d.up.cli(ctx, "deploy", d.example("rules", "add-claims.js"), "--name", "add-claims", "--kind", "rule", "--tenant", "acme"); err != nil {
		return err
	}
	input, err := os.ReadFile(d.example("rules", "add-claims.input.json"))
	if err != nil {
		return err
	}
	started := time.Now()
	out, err := d.up.cli(ctx, "invoke", "add-claims", "--tenant", "acme", "--json", "--input", string(input))
	if err != nil {
		return err
	}
	var got struct {
		Output struct {
			User    map[string]any
			Context struct{ IDToken map[string]any }
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		return fmt.Errorf("invoke answered %q: %w", out, err)
	}
	if err := d.check(fmt.Sprint(got.Output.Context.IDToken["https://acme.example/roles"]) == "[editor billing]",
		"the id token has the roles %v, in %s with the process start of the command", got.Output.Context.IDToken["https://acme.example/roles"], since(started)); err != nil {
		return err
	}
	unverified := strings.Replace(string(input), `"email_verified": true`, `"email_verified": false`, 1)
	_, err = d.up.cli(ctx, "invoke", "add-claims", "--tenant", "acme", "--input", unverified)
	return d.check(err != nil && strings.Contains(err.Error(), "UnauthorizedError: Please verify your email"),
		"an unverified address is refused with the customer's own words: %q", lineWith(fmt.Sprint(err), "UnauthorizedError"))
}

// grpcCall is act (c): a function over gRPC, unary and many on one stream.
func (d *demo) grpcCall(ctx context.Context) error {
	d.title("(c) A service calls a function over gRPC")
	if _, err := d.up.cli(ctx, "deploy", d.example("functions", "quote.js"), "--name", "quote", "--tenant", "acme"); err != nil {
		return err
	}
	key, err := d.up.tenantKey(ctx, "acme", "invoke")
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(d.up.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key), 30*time.Second)
	defer cancel()
	sandbox := pb.NewSandboxClient(conn)
	order := &pb.InvokeRequest{Target: &pb.InvokeRequest_Function{Function: "quote"},
		Input: []byte(`{"country":"AT","items":[{"cents":1000,"quantity":2},{"cents":250,"quantity":10}]}`)}

	started := time.Now()
	res, err := sandbox.Invoke(ctx, order)
	if err != nil {
		return err
	}
	if err := d.check(res.GetError() == nil && string(res.GetOutput()) == `{"net":4250,"vat":850,"gross":5100}`,
		"unary: %s in %s (%s, %s)%s", res.GetOutput(), since(started), res.GetIsolation(), res.GetStart(), failure(res)); err != nil {
		return err
	}

	stream, err := sandbox.InvokeStream(ctx)
	if err != nil {
		return err
	}
	const calls = 500
	started = time.Now()
	go func() { // ends with the stream
		for tag := range uint64(calls) {
			if stream.Send(&pb.InvokeStreamRequest{Tag: tag, Body: &pb.InvokeStreamRequest_Call{Call: order}}) != nil {
				return
			}
		}
		stream.CloseSend()
	}()
	good, limited := 0, 0
	for range calls {
		msg, err := stream.Recv()
		if err != nil {
			return err
		}
		switch r := msg.GetResult(); {
		case r.GetError().GetKind() == "limited": // more at once than the tenant may have: told at once, not started
			limited++
		case r.GetError() == nil && bytes.Equal(r.GetOutput(), res.GetOutput()):
			good++
		default:
			return fmt.Errorf("stream: call %d answered %s%s", msg.GetTag(), r.GetOutput(), failure(r))
		}
	}
	return d.check(good+limited == calls && good > 0, "one stream: %d calls at once in %s, %d answered, %d refused by the tenant's concurrency limit",
		calls, since(started), good, limited)
}

func failure(r *pb.InvokeResponse) string {
	if e := r.GetError(); e != nil {
		return fmt.Sprintf(" error %s: %s %s", e.GetKind(), e.GetMessage(), e.GetThrown().GetMessage())
	}
	return ""
}

// reply is what curl brought.
type reply struct {
	status int
	header map[string]string // lower-cased names
	body   []byte
	took   string
}

// unless says more about an answer that has not the wanted status.
func (r reply) unless(status int) string {
	if r.status == status {
		return ""
	}
	return fmt.Sprintf("; got %d: %s", r.status, r.body)
}

// curl POSTs a body with a tenant's key, as a user would.
func (d *demo) curl(ctx context.Context, key, path string, body []byte) (reply, error) {
	cmd := exec.CommandContext(ctx, "curl", "-sS", "-i", "--max-time", "60", "-H", "Authorization: Bearer "+key,
		"-H", "Content-Type: application/json", "-H", "Expect:", "--data-binary", "@-", d.up.url+path)
	cmd.Stdin = bytes.NewReader(body)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	started := time.Now()
	out, err := cmd.Output()
	if err != nil {
		return reply{}, fmt.Errorf("curl %s: %w: %s", path, err, errOut.String())
	}
	r := reply{took: since(started), header: map[string]string{}}
	head, rest, _ := bytes.Cut(out, []byte("\r\n\r\n"))
	r.body = rest
	lines := strings.Split(string(head), "\r\n")
	fmt.Sscanf(lines[0], "HTTP/1.1 %d", &r.status)
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ":")
		r.header[strings.ToLower(name)] = strings.TrimSpace(value)
	}
	return r, nil
}
