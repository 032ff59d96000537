package router

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"google.golang.org/grpc"

	"paddock/internal/errs"
	pb "paddock/proto/paddock/v1"
)

// handlers are the HTTP routes that are not plain REST forms of a management method.
func (r *Router) handlers() map[string]func(*exchange) error {
	return map[string]func(*exchange) error{
		"POST /v1/run":                            serveRun,
		"POST /v1/functions/{name}/invoke":        serveInvoke,
		"POST /v1/pipelines/{name}/invoke":        servePipeline,
		"ANY /v1/functions/{name}/http":           serveHTTPShaped,
		"ANY /v1/functions/{name}/http/{path...}": serveHTTPShaped,
		"ANY /t/{tenant}/{name}":                  serveHTTPShaped,
		"ANY /t/{tenant}/{name}/{path...}":        serveHTTPShaped,
		ownHost + "ANY /{name}":                   serveHTTPShaped,
		ownHost + "ANY /{name}/{path...}":         serveHTTPShaped,

		ownHost + "POST /v1/functions/{name}/invoke":        serveInvoke,
		ownHost + "ANY /v1/functions/{name}/http":           serveHTTPShaped,
		ownHost + "ANY /v1/functions/{name}/http/{path...}": serveHTTPShaped,

		"PUT /v1/functions/{name}":          serveDeploy,
		"GET /v1/logs":                      serveLogs,
		"GET /v1/audit":                     serveAudit,
		"POST /v1/pool/recycle":             serveRecycle,
		"GET /healthz":                      serveHealthz,
		"GET /readyz":                       serveReadyz,
		"GET /metrics":                      r.serveMetrics(),
		"GET /openapi.json":                 serveOpenAPI,
		"POST /v1/pipelines/{name}/publish": servePublish,
	}
}

// index builds the tree and the map of methods from the table.
func (r *Router) index(table []rule) error {
	r.byRPC = map[string]*rule{}
	handlers := r.handlers()
	for route := range handlers {
		if !slices.ContainsFunc(table, func(ru rule) bool { return ru.route() == route }) {
			return fmt.Errorf("route %q is served and has no line in the route table", route)
		}
	}
	for i := range table {
		ru := &table[i]
		if ru.rpc != "" {
			if r.byRPC[ru.rpc] != nil {
				return fmt.Errorf("method %s is listed twice", ru.rpc)
			}
			r.byRPC[ru.rpc] = ru
		}
		if ru.http == "" || !r.serves(ru) {
			continue
		}
		serve := handlers[ru.route()]
		if serve == nil {
			if ru.rpc == "" {
				return fmt.Errorf("route %q has no handler", ru.route())
			}
			serve = serveManagement
		}
		to := &r.tree
		if ru.own {
			to = &r.ownTree
		}
		if err := to.add(ru.http, &endpoint{rule: ru, serve: serve}); err != nil {
			return err
		}
	}
	return nil
}

// serves says whether what stands behind a route was handed in.
func (r *Router) serves(ru *rule) bool {
	switch {
	case strings.HasPrefix(ru.rpc, "/"+pb.Catalog_ServiceDesc.ServiceName+"/"):
		return r.cfg.Catalog != nil
	case strings.HasPrefix(ru.rpc, "/"+pb.Keys_ServiceDesc.ServiceName+"/"):
		return r.cfg.Keys != nil
	case strings.HasPrefix(ru.rpc, "/"+pb.Pools_ServiceDesc.ServiceName+"/"):
		return r.cfg.Pools != nil
	case strings.HasPrefix(ru.rpc, "/"+pb.Logs_ServiceDesc.ServiceName+"/"):
		return r.cfg.Logs != nil
	case strings.HasPrefix(ru.rpc, "/"+pb.Audit_ServiceDesc.ServiceName+"/"):
		return r.cfg.Audit != nil
	case ru.http == "GET /metrics":
		return r.cfg.Gatherer != nil
	case ru.http == "GET /openapi.json":
		return r.cfg.OpenAPI != ""
	}
	return true
}

// checkServices fails if a registered method has no line in the table.
func (r *Router) checkServices(services map[string]grpc.ServiceInfo) error {
	for name, info := range services {
		for _, m := range info.Methods {
			if full := "/" + name + "/" + m.Name; r.byRPC[full] == nil {
				return fmt.Errorf("method %s is served and has no line in the route table", full)
			}
		}
	}
	return nil
}

// serveHealthz says that the process is alive.
func serveHealthz(x *exchange) error { return x.text("ok\n") }

// serveReadyz says whether calls are welcome.
func serveReadyz(x *exchange) error {
	if !x.router.ready.Load() {
		return errs.New(errs.NoCapacity, "not ready: the pool has no warm container yet, or the router is shutting down")
	}
	return x.text("ready\n")
}

var textContentType = []string{"text/plain; charset=utf-8"}

func (x *exchange) text(s string) error {
	h := x.w.Header()
	h["Content-Type"] = textContentType
	h["Cache-Control"] = noStore
	_, _ = io.WriteString(x.w, s)
	return nil
}

func serveOpenAPI(x *exchange) error {
	x.w.Header()["Content-Type"] = jsonContentType
	_, _ = io.WriteString(x.w, x.router.cfg.OpenAPI)
	return nil
}

func (r *Router) serveMetrics() func(*exchange) error {
	if r.cfg.Gatherer == nil {
		return func(*exchange) error { return errs.New(errs.NotFound, "no metrics here") }
	}
	h := promhttp.HandlerFor(r.cfg.Gatherer, promhttp.HandlerOpts{})
	return func(x *exchange) error {
		http.Handler(h).ServeHTTP(x.w, x.r)
		return nil
	}
}
