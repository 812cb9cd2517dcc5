//! Which record or list an address of the REST API means.

use super::render::Format;
use super::resource::Resource as R;

/// What a path below `/api/rest/v1/` asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// The list of routes.
    Root,
    Information,
    /// `POST …/search`.
    Search,
    List {
        resource: R,
        container: Option<String>,
        format: Format,
    },
    /// By key; a product of the old list by its identifier.
    One {
        resource: R,
        key: String,
        format: Format,
    },
    None,
}

impl Route {
    /// Reads decoded segments.
    pub(super) fn of(segments: &[String]) -> Self {
        let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
        let list = |resource, container: Option<&str>, format| Self::List { resource, container: container.map(ToOwned::to_owned), format };
        let one = |resource, key: String, format| Self::One { resource, key, format };
        let inside = |resource, container: &str, rest: &[&str]| match rest {
            [] => list(resource, Some(container), Format::Uuid),
            [code] => one(resource, format!("{container}/{code}"), Format::Uuid),
            _ => Self::None,
        };
        match parts.as_slice() {
            [] | [""] => Self::Root,
            ["system-information"] => Self::Information,
            ["products-uuid"] => list(R::Products, None, Format::Uuid),
            ["products-uuid", "search"] => Self::Search,
            ["products-uuid", uuid] => one(R::Products, (*uuid).to_owned(), Format::Uuid),
            ["products"] => list(R::Products, None, Format::Identifier),
            ["products", identifier] => one(R::Products, (*identifier).to_owned(), Format::Identifier),
            ["families", family, "variants", rest @ ..] => inside(R::FamilyVariants, family, rest),
            ["attributes", attribute, "options", rest @ ..] => inside(R::AttributeOptions, attribute, rest),
            ["asset-families", family, "assets", rest @ ..] => inside(R::Assets, family, rest),
            ["reference-entities", entity, "records", rest @ ..] => inside(R::ReferenceEntityRecords, entity, rest),
            [name, rest @ ..] => match R::named(name).filter(|resource| resource.spec().container.is_none() && *resource != R::Products) {
                Some(resource) if rest.is_empty() => list(resource, None, Format::Uuid),
                // Measurement families are only listed.
                Some(resource) if rest.len() == 1 && resource != R::MeasurementFamilies => one(resource, rest[0].to_owned(), Format::Uuid),
                _ => Self::None,
            },
        }
    }

    /// What the report counts it as.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Information => "system-information",
            Self::Search => "products-uuid",
            Self::List { resource: R::Products, format: Format::Uuid, .. }
            | Self::One { resource: R::Products, format: Format::Uuid, .. } => "products-uuid",
            Self::List { resource, .. } | Self::One { resource, .. } => resource.spec().name,
            Self::None => "other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(path: &str) -> (&'static str, bool) {
        let segments: Vec<String> = path.split('/').map(ToOwned::to_owned).collect();
        let route = Route::of(&segments);
        (route.name(), matches!(route, Route::One { .. }))
    }

    #[test]
    fn addresses_mean_what_the_contract_says() {
        assert_eq!(name("products-uuid"), ("products-uuid", false));
        assert_eq!(name("products-uuid/search"), ("products-uuid", false));
        assert_eq!(name("products/x"), ("products", true));
        assert_eq!(name("families/f"), ("families", true));
        assert_eq!(name("families/f/variants"), ("family-variants", false));
        assert_eq!(name("attributes/a/options/o"), ("attribute-options", true));
        assert_eq!(name("asset-families/f/assets"), ("assets", false));
        assert_eq!(name("reference-entities/e/records/r"), ("reference-entity-records", true));
        assert_eq!(name("family-variants"), ("other", false));
        assert_eq!(name("measurement-families/x"), ("other", false));
        assert_eq!(name("products/x/y"), ("other", false));
    }
}
