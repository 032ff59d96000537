package router

import (
	"fmt"
	"net/http"
	"strings"

	"paddock/internal/identity"
	pb "paddock/proto/paddock/v1"
)

// public stands in the table for "no credential needed".
const public identity.Role = ""

// tenantRule says which tenant a request acts for.
type tenantRule uint8

const (
	// tenantNone: the whole service's; the request has no tenant.
	tenantNone tenantRule = iota
	// tenantActs: within one tenant, the credential's own; an operator must name it in Paddock-Tenant.
	tenantActs
	// tenantNamed: the message may name a tenant; everybody but an operator may only name his own.
	tenantNamed
)

// rule is a line of the route table: who may do it, for which tenant, to what.
type rule struct {
	rpc      string // full gRPC method; "" if there is none
	http     string // "METHOD /pattern"; "ANY" is every method; "" if there is none
	role     identity.Role
	tenant   tenantRule
	resource string
	call     bool // runs a tenant's code: counted as a call, not as a request
	audit    auditRule
	keyless  keylessRule // what it is for those without a key
	own      bool        // at tenants' own host names, and only there; all others are only at the shared origin
}

// route names the line's place over HTTP.
func (ru *rule) route() string {
	if ru.own {
		return ownHost + ru.http
	}
	return ru.http
}

// ownHost stands before the routes of tenants' own host names.
const ownHost = "own host: "

// deployRoute takes source text as it is.
const deployRoute = "PUT /v1/functions/{name}"

// rules is the whole surface: what is not in here is not served, and a registered method without a line stops the start.
var rules = []rule{
	{rpc: pb.Sandbox_Invoke_FullMethodName,
		role: identity.RoleInvoke, tenant: tenantActs, resource: "call", call: true},
	{rpc: pb.Sandbox_InvokeStream_FullMethodName,
		role: identity.RoleInvoke, tenant: tenantActs, resource: "call", call: true},
	{http: "POST /v1/run", role: identity.RoleInvoke, tenant: tenantActs, resource: "call", call: true},
	{http: "POST /v1/functions/{name}/invoke",
		role: identity.RoleInvoke, tenant: tenantActs, resource: "call", call: true},
	{http: "POST /v1/pipelines/{name}/invoke",
		role: identity.RoleInvoke, tenant: tenantActs, resource: "call", call: true},
	{http: "ANY /v1/functions/{name}/http",
		role: identity.RoleInvoke, tenant: tenantActs, resource: "call", call: true},
	{http: "ANY /v1/functions/{name}/http/{path...}",
		role: identity.RoleInvoke, tenant: tenantActs, resource: "call", call: true},

	{http: "ANY /t/{tenant}/{name}", role: identity.RoleInvoke, tenant: tenantActs, resource: "call", call: true, keyless: publicOnly},
	{http: "ANY /t/{tenant}/{name}/{path...}",
		role: identity.RoleInvoke, tenant: tenantActs, resource: "call", call: true, keyless: publicOnly},
	{own: true, http: "ANY /{name}", role: identity.RoleInvoke, tenant: tenantActs, resource: "call", call: true, keyless: publicOnly},
	{own: true, http: "ANY /{name}/{path...}",
		role: identity.RoleInvoke, tenant: tenantActs, resource: "call", call: true, keyless: publicOnly},
	{own: true, http: "POST /v1/functions/{name}/invoke",
		role: identity.RoleInvoke, tenant: tenantActs, resource: "call", call: true, keyless: keyOrPublic},
	{own: true, http: "ANY /v1/functions/{name}/http",
		role: identity.RoleInvoke, tenant: tenantActs, resource: "call", call: true, keyless: keyOrPublic},
	{own: true, http: "ANY /v1/functions/{name}/http/{path...}",
		role: identity.RoleInvoke, tenant: tenantActs, resource: "call", call: true, keyless: keyOrPublic},

	{rpc: pb.Logs_Tail_FullMethodName, http: "GET /v1/logs",
		role: identity.RoleInvoke, tenant: tenantActs, resource: "logs", audit: auditReads},
	{rpc: pb.Logs_ListCalls_FullMethodName, http: "GET /v1/calls",
		role: identity.RoleInvoke, tenant: tenantActs, resource: "logs", audit: auditReads},
	{rpc: pb.Logs_GetCall_FullMethodName, http: "GET /v1/calls/{id}",
		role: identity.RoleDeploy, tenant: tenantActs, resource: "logs", audit: auditReads},

	{rpc: pb.Catalog_CreateTenant_FullMethodName, http: "POST /v1/tenants",
		role: identity.RoleOperator, resource: "tenants"},
	{rpc: pb.Catalog_ListTenants_FullMethodName, http: "GET /v1/tenants",
		role: identity.RoleOperator, resource: "tenants", audit: auditReads},
	{rpc: pb.Catalog_GetTenant_FullMethodName, http: "GET /v1/tenants/{id}",
		role: identity.RoleTenantAdmin, tenant: tenantNamed, resource: "tenants", audit: auditReads},
	{rpc: pb.Catalog_UpdateTenant_FullMethodName, http: "PATCH /v1/tenants/{id}",
		role: identity.RoleOperator, resource: "tenants"},
	{rpc: pb.Catalog_SuspendTenant_FullMethodName, http: "POST /v1/tenants/{id}/suspend",
		role: identity.RoleOperator, resource: "tenants"},
	{rpc: pb.Catalog_DeleteTenant_FullMethodName, http: "DELETE /v1/tenants/{id}",
		role: identity.RoleOperator, resource: "tenants"},

	{rpc: pb.Catalog_DeployFunction_FullMethodName, http: deployRoute,
		role: identity.RoleDeploy, tenant: tenantActs, resource: "functions"},
	{rpc: pb.Catalog_GetFunction_FullMethodName, http: "GET /v1/functions/{name}",
		role: identity.RoleInvoke, tenant: tenantActs, resource: "functions", audit: auditReads},
	{rpc: pb.Catalog_ListFunctions_FullMethodName, http: "GET /v1/functions",
		role: identity.RoleInvoke, tenant: tenantActs, resource: "functions", audit: auditReads},
	{rpc: pb.Catalog_DeleteFunction_FullMethodName, http: "DELETE /v1/functions/{name}",
		role: identity.RoleDeploy, tenant: tenantActs, resource: "functions"},

	{rpc: pb.Catalog_UpdateFunction_FullMethodName, http: "PATCH /v1/functions/{name}",
		role: identity.RoleDeploy, tenant: tenantActs, resource: "functions"},
	{rpc: pb.Catalog_ListVersions_FullMethodName, http: "GET /v1/functions/{name}/versions",
		role: identity.RoleInvoke, tenant: tenantActs, resource: "functions", audit: auditReads},
	{rpc: pb.Catalog_GetVersion_FullMethodName, http: "GET /v1/functions/{name}/versions/{version}",
		role: identity.RoleDeploy, tenant: tenantActs, resource: "functions", audit: auditReads},
	{rpc: pb.Catalog_DeleteVersion_FullMethodName, http: "DELETE /v1/functions/{name}/versions/{version}",
		role: identity.RoleDeploy, tenant: tenantActs, resource: "functions"},
	{rpc: pb.Catalog_DiffVersions_FullMethodName, http: "GET /v1/functions/{name}/diff",
		role: identity.RoleDeploy, tenant: tenantActs, resource: "functions", audit: auditReads},
	{rpc: pb.Catalog_ActivateVersion_FullMethodName, http: "POST /v1/functions/{name}/activate",
		role: identity.RoleDeploy, tenant: tenantActs, resource: "functions"},
	{rpc: pb.Catalog_RollbackFunction_FullMethodName, http: "POST /v1/functions/{name}/rollback",
		role: identity.RoleDeploy, tenant: tenantActs, resource: "functions"},

	{rpc: pb.Catalog_PutPipeline_FullMethodName, http: "PUT /v1/pipelines/{name}",
		role: identity.RoleDeploy, tenant: tenantActs, resource: "functions"},
	{rpc: pb.Catalog_PublishPipeline_FullMethodName, http: "POST /v1/pipelines/{name}/publish",
		role: identity.RoleDeploy, tenant: tenantActs, resource: "functions"},
	{rpc: pb.Catalog_GetPipeline_FullMethodName, http: "GET /v1/pipelines/{name}",
		role: identity.RoleInvoke, tenant: tenantActs, resource: "functions", audit: auditReads},
	{rpc: pb.Catalog_ListPipelines_FullMethodName, http: "GET /v1/pipelines",
		role: identity.RoleInvoke, tenant: tenantActs, resource: "functions", audit: auditReads},
	{rpc: pb.Catalog_DeletePipeline_FullMethodName, http: "DELETE /v1/pipelines/{name}",
		role: identity.RoleDeploy, tenant: tenantActs, resource: "functions"},

	{rpc: pb.Catalog_SetSecret_FullMethodName, http: "PUT /v1/secrets/{name}",
		role: identity.RoleTenantAdmin, tenant: tenantActs, resource: "secrets"},
	{rpc: pb.Catalog_ListSecrets_FullMethodName, http: "GET /v1/secrets",
		role: identity.RoleTenantAdmin, tenant: tenantActs, resource: "secrets", audit: auditReads},
	{rpc: pb.Catalog_DeleteSecret_FullMethodName, http: "DELETE /v1/secrets/{name}",
		role: identity.RoleTenantAdmin, tenant: tenantActs, resource: "secrets"},
	{rpc: pb.Catalog_RotateDataKey_FullMethodName, http: "POST /v1/data-key/rotate",
		role: identity.RoleTenantAdmin, tenant: tenantActs, resource: "secrets"},

	{rpc: pb.Keys_CreateKey_FullMethodName, http: "POST /v1/keys",
		role: identity.RoleTenantAdmin, tenant: tenantNamed, resource: "keys"},
	{rpc: pb.Keys_ListKeys_FullMethodName, http: "GET /v1/keys",
		role: identity.RoleTenantAdmin, tenant: tenantNamed, resource: "keys", audit: auditReads},
	{rpc: pb.Keys_RevokeKey_FullMethodName, http: "DELETE /v1/keys/{id}",
		role: identity.RoleTenantAdmin, tenant: tenantNamed, resource: "keys"},

	{rpc: pb.Keys_RotateKEK_FullMethodName, http: "POST /v1/kek/rotate", role: identity.RoleOperator, resource: "keys"},

	{rpc: pb.Pools_ListContainers_FullMethodName, http: "GET /v1/pool/containers",
		role: identity.RoleOperator, resource: "pool", audit: auditNothing},
	{rpc: pb.Pools_GetPool_FullMethodName, http: "GET /v1/pool", role: identity.RoleOperator, resource: "pool", audit: auditNothing},
	{rpc: pb.Pools_Explain_FullMethodName, http: "GET /v1/pool/explain",
		role: identity.RoleOperator, resource: "pool", audit: auditNothing},
	{rpc: pb.Pools_Resize_FullMethodName, http: "POST /v1/pool/resize", role: identity.RoleOperator, resource: "pool"},
	{rpc: pb.Pools_ListNodes_FullMethodName, http: "GET /v1/pool/nodes", role: identity.RoleOperator, resource: "pool", audit: auditNothing},
	{rpc: pb.Pools_DrainNode_FullMethodName, http: "POST /v1/pool/nodes/{node}/drain", role: identity.RoleOperator, resource: "pool"},
	{rpc: pb.Pools_UndrainNode_FullMethodName, http: "POST /v1/pool/nodes/{node}/undrain", role: identity.RoleOperator, resource: "pool"},
	{rpc: pb.Pools_Drain_FullMethodName, http: "POST /v1/pool/drain", role: identity.RoleOperator, resource: "pool"},
	{rpc: pb.Pools_Recycle_FullMethodName, http: "POST /v1/pool/recycle", role: identity.RoleOperator, resource: "pool"},

	{rpc: pb.Pools_ListRuntimes_FullMethodName, http: "GET /v1/runtimes", role: identity.RoleOperator, resource: "pool", audit: auditNothing},
	{rpc: pb.Pools_StartRollout_FullMethodName, http: "POST /v1/runtimes/{runtime}/rollout", role: identity.RoleOperator, resource: "pool"},
	{rpc: pb.Pools_PauseRollout_FullMethodName, http: "POST /v1/runtimes/{runtime}/pause", role: identity.RoleOperator, resource: "pool"},
	{rpc: pb.Pools_ResumeRollout_FullMethodName, http: "POST /v1/runtimes/{runtime}/resume", role: identity.RoleOperator, resource: "pool"},
	{rpc: pb.Pools_RollbackRuntime_FullMethodName, http: "POST /v1/runtimes/{runtime}/rollback", role: identity.RoleOperator, resource: "pool"},

	{rpc: pb.Audit_Tail_FullMethodName, http: "GET /v1/audit",
		role: identity.RoleOperator, resource: "audit", audit: auditAlways},

	{http: "GET /healthz", role: public, resource: "health"},
	{http: "GET /readyz", role: public, resource: "health"},
	{http: "GET /metrics", role: public, resource: "metrics"},
	{http: "GET /openapi.json", role: public, resource: "schema"},
	{rpc: "/grpc.health.v1.Health/Check", role: public, resource: "health"},
	{rpc: "/grpc.health.v1.Health/List", role: public, resource: "health"},
	{rpc: "/grpc.health.v1.Health/Watch", role: public, resource: "health"},
	{rpc: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", role: public, resource: "schema"},
	{rpc: "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", role: public, resource: "schema"},
}

// anyMethod is the key of routes that take every method.
const anyMethod = "ANY"

// params are the wildcards of a matched pattern, in order; no pattern has more than three. Handlers of calls find the function
// first, then the path behind it.
type params [3]string

// endpoint is an HTTP route with what serves it.
type endpoint struct {
	rule  *rule
	serve func(*exchange) error
}

// tree matches paths by segment. A literal segment goes before a wildcard; {path...} takes the rest, unescaped and
// uncleaned: it is the function's own.
type tree struct {
	literal map[string]*tree
	param   *tree
	rest    map[string]*endpoint // by method
	here    map[string]*endpoint // by method
}

func (t *tree) add(pattern string, e *endpoint) error {
	method, path, ok := strings.Cut(pattern, " ")
	if !ok || !strings.HasPrefix(path, "/") {
		return fmt.Errorf("route %q: want METHOD /path", pattern)
	}
	for rest := path[1:]; ; {
		segment, more, found := strings.Cut(rest, "/")
		if strings.HasSuffix(segment, "...}") {
			return put(&t.rest, method, pattern, e)
		}
		t = t.child(segment)
		if !found {
			return put(&t.here, method, pattern, e)
		}
		rest = more
	}
}

func (t *tree) child(segment string) *tree {
	if strings.HasPrefix(segment, "{") {
		if t.param == nil {
			t.param = &tree{}
		}
		return t.param
	}
	if t.literal == nil {
		t.literal = map[string]*tree{}
	}
	if t.literal[segment] == nil {
		t.literal[segment] = &tree{}
	}
	return t.literal[segment]
}

func put(to *map[string]*endpoint, method, pattern string, e *endpoint) error {
	if *to == nil {
		*to = map[string]*endpoint{}
	}
	if _, dup := (*to)[method]; dup {
		return fmt.Errorf("route %q is listed twice", pattern)
	}
	(*to)[method] = e
	return nil
}

// match finds the endpoint of an escaped path. there are the endpoints of that path by method, nil if there is no such
// path; e is nil if none of them takes method.
func (t *tree) match(method, path string) (e *endpoint, p params, there map[string]*endpoint) {
	if path == "" || path[0] != '/' {
		return nil, p, nil
	}
	n := 0
	for rest := path[1:]; ; {
		segment, more, slash := strings.Cut(rest, "/")
		next := t.literal[segment]
		if next == nil && t.param != nil && segment != "" {
			next = t.param
			p[n] = segment
			n++
		}
		if next == nil {
			if t.rest == nil {
				return nil, p, nil
			}
			p[n] = rest
			return pick(t.rest, method), p, t.rest
		}
		if t = next; !slash {
			return pick(t.here, method), p, t.here
		}
		rest = more
	}
}

func pick(byMethod map[string]*endpoint, method string) *endpoint {
	if e := byMethod[method]; e != nil {
		return e
	}
	if e := byMethod[anyMethod]; e != nil {
		return e
	}
	if method == http.MethodHead {
		return byMethod[http.MethodGet]
	}
	return nil
}
