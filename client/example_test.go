package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"

	"paddock/client"
	pb "paddock/proto/paddock/v1"
)

// standIn answers the examples' calls as the service would: it greets, and its pipeline refuses evil.example.
type standIn struct {
	pb.UnimplementedSandboxServer
}

func (standIn) Invoke(_ context.Context, r *pb.InvokeRequest) (*pb.InvokeResponse, error) {
	if r.GetPipeline() == "login" {
		return &pb.InvokeResponse{CallId: "9f2c", Error: &pb.CallError{Kind: "refused", Message: "a step refused", Started: "yes",
			Thrown: &pb.Thrown{Name: "UnauthorizedError", Message: "Access is limited to employees."}}}, nil
	}
	return &pb.InvokeResponse{Output: []byte(`"Hello, Ada!"`)}, nil
}

func (s standIn) InvokeStream(ss pb.Sandbox_InvokeStreamServer) error {
	for {
		m, err := ss.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := ss.Send(&pb.InvokeStreamResponse{Tag: m.GetTag(), Body: &pb.InvokeStreamResponse_Result{
			Result: &pb.InvokeResponse{Output: m.GetCall().GetInput()}}}); err != nil {
			return err
		}
	}
}

// example is where the examples' service is.
var example = func() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	srv := grpc.NewServer()
	pb.RegisterSandboxServer(srv, standIn{})
	go func() { _ = srv.Serve(l) }()
	return l.Addr().String()
}()

func Example() {
	c, err := client.New(client.Options{Address: example, Key: "KEY"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	value, err := c.Invoke(ctx, "hello", []byte(`{"name":"Ada"}`))
	fmt.Println(string(value), err)
	// Output: "Hello, Ada!" <nil>
}

// A deployed function with types of one's own.
func ExampleFunc() {
	c, err := client.New(client.Options{Address: example, Key: "KEY"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	type person struct {
		Name string `json:"name"`
	}
	hello := client.Func[person, string](c, "hello")
	text, err := hello(context.Background(), person{Name: "Ada"})
	fmt.Println(text, err)
	// Output: Hello, Ada! <nil>
}

// What failed decides what to do.
func ExampleError() {
	c, err := client.New(client.Options{Address: example, Key: "KEY"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	_, err = c.Pipeline(context.Background(), "login", []byte(`{"user":{"email":"eve@evil.example"},"context":{}}`))
	var failed *client.Error
	switch {
	case err == nil:
		fmt.Println("logged in")
	case errors.As(err, &failed) && failed.Kind == client.Refused:
		fmt.Println("refused:", failed.Thrown.GetMessage())
	case errors.As(err, &failed) && failed.Started == client.StartedNo:
		fmt.Println("nothing has run; try again after", failed.RetryAfter)
	default:
		fmt.Println(err)
	}
	// Output: refused: Access is limited to employees.
}

// Many calls at once on one stream.
func ExampleStream() {
	c, err := client.New(client.Options{Address: example, Key: "KEY"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	s := c.Stream()
	defer s.Close()
	var begun []*client.Pending
	for n := range 3 {
		begun = append(begun, s.Start(context.Background(), client.Call{Function: "echo", Input: fmt.Append(nil, n)}))
	}
	for _, p := range begun {
		res, err := p.Wait()
		fmt.Println(string(res.GetOutput()), err)
	}
	// Output:
	// 0 <nil>
	// 1 <nil>
	// 2 <nil>
}

// An HTTP-shaped function: the request's body goes out and the answer's comes in as a stream.
func ExampleWeb() {
	c, err := client.New(client.Options{Address: "https://paddock.example", Key: "KEY"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	shop := c.Web("shop")
	req, err := shop.Request(context.Background(), http.MethodPost, "/orders?dry=1", strings.NewReader(`{"item":7}`), client.WebOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := shop.Do(req)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	fmt.Println(res.Status, string(body), err)
}

// Deploy, and call what was deployed through whichever router: the revision makes it wait until it has seen it.
func ExampleFunctions() {
	c, err := client.New(client.Options{Address: "https://paddock.example", Key: "KEY"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Close()
	ctx := context.Background()
	f, err := c.Functions().Deploy(ctx, &client.Deployment{Name: "double", Source: []byte("n => 2 * n"), Note: "first"})
	if err != nil {
		fmt.Println(err)
		return
	}
	res, err := c.Do(ctx, client.Call{Function: "double", Input: []byte("21"), MinRevision: f.GetRevision()})
	fmt.Println(string(res.GetOutput()), err)
	for f, err := range c.Functions().All(ctx) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(f.GetName(), f.GetVersion())
	}
}
