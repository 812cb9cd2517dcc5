//! What applications are answered, rightly and wrongly.

use super::{API_TOKEN, Stage};

impl Stage {
    /// Every route of the API socket, with the right token, with none and with another secret. A row shows what is in it, to whom it is for.
    pub(super) async fn api(&mut self) {
        let base = format!("http://127.0.0.1:{}/v1/pmp/tasks/", self.api_port);
        let tokens = [None, Some(self.secret(API_TOKEN)), Some(self.secret("sources.<name>.token"))];
        let key = self.universe.sandbox.keys("tasks").await.remove(0);
        let escaped: String = url::form_urlencoded::byte_serialize(self.secrets["sources.<name>.token"].as_bytes()).collect();
        for token in &tokens {
            for path in
                ["", "?max_age=1ms&timeout=2s", "?wait_for=7", "/history", "/refresh", "/nowhere"].map(|rest| format!("{key}{rest}"))
            {
                let request = match path.ends_with("/refresh") {
                    true => self.universe.client.post(format!("{base}{path}")),
                    false => self.universe.client.get(format!("{base}{path}")),
                };
                let request = match token {
                    Some(token) => request.bearer_auth(token),
                    None => request,
                };
                let n_said = self.said.len();
                let status = self.answered(&path, request).await;
                assert!(*token == tokens[1] || status == 401, "{path}: {status}");
                let is_shown = *token == tokens[1] && !path.ends_with("/history");
                if is_shown {
                    let said = self.said.split_off(n_said);
                    self.shown.extend(said);
                }
            }
            // Secrets where they do not belong.
            let request = self.universe.client.get(format!("{base}1?token={escaped}"));
            let status = self.answered("a token in the query", request).await;
            assert_eq!(status, 401);
        }
    }
}
