//! The manifests of Kubernetes and Swarm's stack: what belongs together in them, and that it fits the settings.
//!
//! They are read as they are applied: by Kustomize where `kubectl` is here, and else file by file. `.ci/run` checks them against
//! Kubernetes' schema as well.

mod common;

use common::{CLIENT, SERVER, command, finish};
use serde::Deserialize;
use serde_json::{Value, json};
use serde_norway::Deserializer;
use std::{fs, path::Path, process::Command, time::Duration};

const VERIFY: &str = "compose/kubernetes/verify";
/// What a client that never reads costs at most in the server's process.
const BUFFER: u64 = 64 * 1024;

/// The documents of a text.
fn documents(text: &str) -> Vec<Value> {
    let documents = Deserializer::from_str(text).map(|document| {
        let mut document = serde_norway::Value::deserialize(document).unwrap();
        document.apply_merge().unwrap();
        serde_json::to_value(document).unwrap()
    });
    documents.collect()
}

/// What Kustomize makes of a folder. Without `kubectl` the files that it names are put together by hand.
fn manifests(folder: &str) -> Vec<Value> {
    if Command::new("kubectl").arg("version").arg("--client").output().is_ok_and(|output| output.status.success()) {
        let made = finish(Command::new("kubectl").args(["kustomize", folder]));
        assert_eq!(made.code, 0, "{made:?}");
        return documents(&made.out);
    }
    kustomize(Path::new(folder))
}

fn kustomize(path: &Path) -> Vec<Value> {
    if path.is_file() {
        return documents(&fs::read_to_string(path).unwrap());
    }
    let kustomization = &documents(&fs::read_to_string(path.join("kustomization.yaml")).unwrap())[0];
    let resources = list(&kustomization["resources"]).iter();
    let resources = resources.flat_map(|resource| kustomize(&path.join(resource.as_str().unwrap())));
    let maps = list(&kustomization["configMapGenerator"]).iter().map(|map| {
        let files = list(&map["files"]).iter().map(|file| file.as_str().unwrap());
        let data = files.map(|file| (file.to_owned(), fs::read_to_string(path.join(file)).unwrap().into()));
        json!({ "kind": "ConfigMap", "metadata": { "name": map["name"] }, "data": data.collect::<serde_json::Map<_, _>>() })
    });
    resources.chain(maps).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn of_kind<'a>(manifests: &'a [Value], kind: &str) -> &'a Value {
    let mut found = manifests.iter().filter(|manifest| manifest["kind"] == kind);
    let (Some(one), None) = (found.next(), found.next()) else { panic!("not one {kind}") };
    one
}

/// The only container of a pod.
fn container(workload: &Value) -> &Value {
    let [container] = list(&workload["spec"]["template"]["spec"]["containers"]) else { panic!("{workload}") };
    container
}

fn duration(text: &str) -> Duration {
    humantime::parse_duration(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn seconds(value: &Value) -> Duration {
    Duration::from_secs(value.as_u64().unwrap_or_else(|| panic!("{value}")))
}

/// The settings in force of a program with this environment, each by its name. The containers' paths are those of the checkout.
struct InForce(Vec<(String, String)>);

impl InForce {
    fn of(program: &str, environment: impl IntoIterator<Item = (String, String)>, args: &[&str]) -> Self {
        let environment = environment.into_iter().filter(|(name, _)| name.starts_with("ECHO_"));
        let environment = environment.map(|(name, value)| (name, value.trim_start_matches("/").to_owned()));
        let finished = finish(command(program).envs(environment).args(args).arg("--print-settings"));
        assert_eq!(finished.code, 0, "{finished:?}");
        let mut section = "";
        let settings = finished.out.lines().filter_map(|line| match line.split_once(" = ") {
            Some((key, value)) => {
                let (value, _) = value.split_once(" # ").expect("it says where the value comes from");
                Some((format!("{section}.{key}"), value.trim_matches('"').to_owned()))
            }
            None => {
                section = line.trim_matches(['[', ']']);
                None
            }
        });
        Self(settings.collect())
    }

    fn get(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(is, _)| is == name);
        found.map(|(_, value)| &**value).unwrap_or_else(|| panic!("no {name} in {:?}", self.0))
    }

    fn duration(&self, name: &str) -> Duration {
        duration(self.get(name))
    }

    fn port(&self, name: &str) -> u64 {
        self.get(name).rsplit_once(':').expect("an address").1.parse().unwrap()
    }

    /// How long a stop takes at most.
    fn longest_stop(&self) -> Duration {
        self.duration("supervisor.lame_duck") + self.duration("supervisor.shutdown_timeout")
    }
}

// Kubernetes.

/// The settings of a workload's container.
fn kubernetes_settings(program: &str, workload: &Value) -> InForce {
    let container = container(workload);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let environment =
        list(&container["env"]).iter().map(|variable| (text(&variable["name"]), text(&variable["value"])));
    let args: Vec<_> = list(&container["args"]).iter().map(|arg| arg.as_str().unwrap()).collect();
    InForce::of(program, environment, &args)
}

#[test]
fn the_manifests_hold_the_settings_of_the_checkout_and_name_no_others() {
    let manifests = manifests(VERIFY);
    let data = &of_kind(&manifests, "ConfigMap")["data"];
    for (program, workload) in [("server", "Deployment"), ("client", "Job")] {
        let file = format!("{program}.toml");
        assert_eq!(data[&*file], fs::read_to_string(format!("settings/{file}")).unwrap());
        let workload = of_kind(&manifests, workload);
        let settings = format!("ECHO_{}_SETTINGS", program.to_uppercase());
        let mut environment = list(&container(workload)["env"]).iter();
        let named = environment.find(|variable| variable["name"] == *settings).expect("it names its settings");
        assert_eq!(named["value"], format!("/settings/{file}"));
        let [mount] = list(&container(workload)["volumeMounts"]) else { panic!("{workload}") };
        assert_eq!((&mount["mountPath"], &mount["readOnly"]), (&json!("/settings"), &json!(true)));
        let [volume] = list(&workload["spec"]["template"]["spec"]["volumes"]) else { panic!("{workload}") };
        assert_eq!(volume["name"], mount["name"]);
        assert_eq!(volume["configMap"]["name"], of_kind(&manifests, "ConfigMap")["metadata"]["name"]);
    }
}

#[test]
fn a_pod_has_the_time_that_its_stop_takes_and_its_lame_duck_outlasts_the_news() {
    let manifests = manifests(VERIFY);
    let server = of_kind(&manifests, "Deployment");
    let settings = kubernetes_settings(SERVER, server);
    assert!(seconds(&server["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]) > settings.longest_stop());
    let probe = &container(server)["readinessProbe"];
    let noticed = seconds(&probe["periodSeconds"]) * probe["failureThreshold"].as_u64().unwrap() as u32;
    assert!(settings.duration("supervisor.lame_duck") > noticed + seconds(&probe["timeoutSeconds"]));
    let client = kubernetes_settings(CLIENT, of_kind(&manifests, "Job"));
    assert!(settings.duration("supervisor.lame_duck") > client.duration("traffic.renew"));
    let update = &server["spec"]["strategy"]["rollingUpdate"];
    assert_eq!(update, &json!({ "maxUnavailable": 0, "maxSurge": 1 }));
    assert!(seconds(&server["spec"]["minReadySeconds"]) > Duration::ZERO);
}

#[test]
fn the_ports_are_those_of_the_settings_and_no_probe_is_an_echo() {
    let manifests = manifests(VERIFY);
    let server = of_kind(&manifests, "Deployment");
    let settings = kubernetes_settings(SERVER, server);
    let (echo, admin) = (settings.port("listen.address"), settings.port("admin.address"));
    let ports = json!([{ "name": "echo", "containerPort": echo }, { "name": "admin", "containerPort": admin }]);
    assert_eq!(container(server)["ports"], ports);
    for (probe, path) in [("readinessProbe", "/readyz?exclude=room"), ("livenessProbe", "/livez")] {
        assert_eq!(container(server)[probe]["httpGet"], json!({ "path": path, "port": "admin" }));
    }
    let service = of_kind(&manifests, "Service");
    assert_eq!(service["spec"]["clusterIP"], "None");
    assert_eq!(service["spec"]["ports"], json!([{ "name": "echo", "port": echo, "targetPort": "echo" }]));
    let address = format!("{}:{echo}", service["metadata"]["name"].as_str().unwrap());
    let client = kubernetes_settings(CLIENT, of_kind(&manifests, "Job"));
    assert_eq!(client.get("server.address"), address);
}

#[test]
fn the_selectors_find_the_servers_and_not_the_clients() {
    let manifests = manifests(VERIFY);
    let server = of_kind(&manifests, "Deployment");
    let labels = &server["spec"]["template"]["metadata"]["labels"];
    let pod = &server["spec"]["template"]["spec"];
    for selector in [
        &server["spec"]["selector"]["matchLabels"],
        &of_kind(&manifests, "Service")["spec"]["selector"],
        &of_kind(&manifests, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        &pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ] {
        assert_eq!(selector, labels);
    }
    assert_ne!(&of_kind(&manifests, "Job")["spec"]["template"]["metadata"]["labels"], labels);
}

#[test]
fn pods_are_restricted_and_have_room_for_the_buffers_that_their_settings_allow() {
    let manifests = manifests(VERIFY);
    for workload in ["Deployment", "Job"] {
        let workload = of_kind(&manifests, workload);
        let pod = &workload["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], false);
        let user = json!({
            "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "seccompProfile": { "type": "RuntimeDefault" }
        });
        assert_eq!(pod["securityContext"], user);
        let privileges = json!({
            "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] }
        });
        assert_eq!(container(workload)["securityContext"], privileges);
    }
    let server = of_kind(&manifests, "Deployment");
    let most: u64 = kubernetes_settings(SERVER, server).get("supervisor.max_connections").parse().unwrap();
    let limit = container(server)["resources"]["limits"]["memory"].as_str().unwrap();
    let limit = limit.strip_suffix("Mi").unwrap().parse::<u64>().unwrap() * 1024 * 1024;
    assert!(limit > most * BUFFER, "{limit} bytes for {most} connections");
    let job = &of_kind(&manifests, "Job")["spec"];
    // A client that fails is not run again, and does not end the others.
    assert_eq!((&job["completionMode"], &job["backoffLimitPerIndex"]), (&json!("Indexed"), &json!(0)));
    assert_eq!(job["completions"], job["parallelism"]);
}

// Swarm and HAProxy.

/// The stack, with the defaults of its variables.
fn stack() -> Value {
    let text = fs::read_to_string("compose/swarm/stack.yaml").unwrap();
    let mut parts = text.split("${");
    let mut filled = parts.next().unwrap().to_owned();
    for part in parts {
        let (variable, rest) = part.split_once('}').unwrap();
        filled += variable.split_once(":-").expect("a variable has a default").1;
        filled += rest;
    }
    documents(&filled).remove(0)
}

fn stack_settings(program: &str, service: &Value) -> InForce {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let environment = service["environment"].as_object().unwrap().iter();
    let args: Vec<_> = list(&service["command"]).iter().map(|arg| arg.as_str().unwrap()).collect();
    InForce::of(program, environment.map(|(name, value)| (name.clone(), text(value))), &args)
}

/// The words behind these in HAProxy's configuration, on the only line that has them.
fn balancer(words: &str) -> String {
    let configuration = fs::read_to_string("compose/haproxy/haproxy.cfg").unwrap();
    let lines = configuration.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let mut found = lines.filter_map(|line| line.split_once(words).map(|(_, rest)| rest.trim().to_owned()));
    let (Some(one), None) = (found.next(), found.next()) else { panic!("not one line with {words}") };
    one
}

/// The first word behind these.
fn option(words: &str) -> String {
    balancer(words).split(' ').next().unwrap().to_owned()
}

#[test]
fn a_task_has_the_time_that_its_stop_takes() {
    let services = &stack()["services"];
    let (server, haproxy) = (&services["server"], &services["haproxy"]);
    let grace = |service: &Value| duration(service["stop_grace_period"].as_str().unwrap());
    assert!(grace(server) > stack_settings(SERVER, server).longest_stop());
    assert!(grace(haproxy) > duration(&option("hard-stop-after ")));
    for service in [server, haproxy] {
        let update = &service["deploy"]["update_config"];
        assert_eq!((&update["order"], &update["parallelism"]), (&json!("start-first"), &json!(1)));
        assert_eq!(update["failure_action"], "rollback");
    }
    for service in [server, haproxy, &services["client"]] {
        assert_eq!(service["deploy"]["endpoint_mode"], "dnsrr");
    }
}

#[test]
fn no_check_of_the_engine_is_an_echo() {
    let server = &stack()["services"]["server"];
    assert_eq!(server["healthcheck"]["test"], json!(["CMD", "/echo-server", "healthcheck", "--live"]));
    assert_ne!(stack_settings(SERVER, server).get("admin.address"), "");
}

#[test]
fn haproxy_fits_the_servers_of_the_stack() {
    let services = &stack()["services"];
    let (server, haproxy) = (stack_settings(SERVER, &services["server"]), &services["haproxy"]);
    let cap = server.get("supervisor.max_connections");
    assert_eq!(haproxy["environment"]["MAX_CONNECTIONS"].to_string(), cap);
    assert_eq!(balancer(" maxconn "), format!("\"${{MAX_CONNECTIONS-{cap}}}\""));
    assert_eq!(option("port "), server.port("admin.address").to_string());
    // One more than all replicas: a roll starts a new server before it stops an old one.
    let template = balancer("server-template server ");
    let (slots, name) = template.split_once(' ').unwrap();
    assert!(slots.parse::<u64>().unwrap() > services["server"]["deploy"]["replicas"].as_u64().unwrap());
    assert!(name.starts_with(&format!("tasks.server:{} ", server.port("listen.address"))), "{name}");
    // Two checks, the second one soon after the first that failed.
    let noticed = duration(&option(" inter ")) + duration(&option(" fastinter "));
    assert!(server.duration("supervisor.lame_duck") > noticed);
    assert_eq!(option(" fall "), "2");
    assert!(balancer("fall 2 rise 1 ").contains("send-proxy-v2") && server.get("listen.proxy_protocol") == "optional");
    let client = stack_settings(CLIENT, &services["client"]);
    assert_eq!(client.get("server.address"), "haproxy:12345");
    assert!(client.duration("traffic.renew") < duration(&option("hard-stop-after ")));
}
