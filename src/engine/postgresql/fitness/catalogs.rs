//! What this server says of itself and, because it is a physical copy, of what the primary's databases need: extensions and
//! the libraries behind functions, collations and their versions, pages that failed their checksums.
//!
//! Not here: what the primary has instead (`primary.rs`).
//!
//! Source: PostgreSQL manual, pg_extension, pg_available_extensions, pg_collation (collversion), pg_database
//! (datcollversion), pg_stat_database (checksum_failures), "CREATE FUNCTION" and dynamic_library_path for where a library is
//! looked for.

use super::disk::Disk;
use super::{libraries, local, rows};
use crate::engine::postgresql::error::Result;
use crate::engine::postgresql::session::Session;
use crate::types::{Unfit, shortened};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// So many databases are looked at, in the order of their names: more would take longer than the pause between two looks.
const DATABASES: usize = 200;

/// The server's own settings.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// `server_version_num`.
    pub version: u32,
    pub preloads: Vec<String>,
    pub library_path: String,
    /// What `$libdir` stands for.
    pub package_libraries: PathBuf,
    /// Empty where nothing is archived, or by a library.
    pub archive_command: String,
    /// WAL is to be archived, and nothing says how.
    pub archives_nowhere: bool,
    pub checksums: Option<Unfit>,
}

/// A collation that something uses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Collation {
    pub provider: String,
    pub locale: String,
    /// The version that was recorded when it was made, and the one here.
    pub recorded: Option<String>,
    pub here: Option<String>,
    /// One of the databases that use it.
    pub database: String,
}

/// What the databases need.
#[derive(Clone, Debug, Default)]
pub struct Catalogs {
    /// Extensions and libraries whose files are not here, each with its database.
    pub missing: BTreeSet<String>,
    pub collations: Vec<Collation>,
}

const ABOUT: &str = "select current_setting('server_version_num')::int, current_setting('shared_preload_libraries'), \
    current_setting('dynamic_library_path'), (select setting from pg_config where name = 'PKGLIBDIR'), \
    case when current_setting('archive_mode') <> 'off' and coalesce(current_setting('archive_library', true), '') = '' \
    then current_setting('archive_command') else '' end, \
    current_setting('archive_mode') <> 'off' and coalesce(current_setting('archive_library', true), '') = '' \
    and current_setting('archive_command') = ''";

const CHECKSUMS: &str = "select coalesce(datname::text, 'shared catalogs'), checksum_failures from pg_stat_database \
    where checksum_failures > 0 order by checksum_failures desc limit 1";

/// Files of an installed version count as here where a script makes it, leads to it or leads on from it.
const EXTENSIONS: &str = "select e.extname::text, e.extversion from pg_extension e \
    left join pg_available_extensions a on a.name = e.extname \
    where case when a.name is null then true when a.default_version = e.extversion then false \
    else not exists (select from pg_available_extension_versions v \
            where v.name = e.extname and v.version = e.extversion) \
        and not exists (select from pg_extension_update_paths(e.extname) p \
            where e.extversion in (p.source, p.target)) end";

const LIBRARIES: &str = "select distinct probin from pg_proc where probin is not null \
    and prolang = (select oid from pg_language where lanname = 'c')";

/// What this server is.
pub async fn server(session: &Session) -> Result<Server> {
    let about = rows(session, "ask the server for its settings", ABOUT).await?;
    let failed = rows(session, "ask the server for failed checksums", CHECKSUMS).await?;
    let Some(row) = about.first() else { return Ok(Server::default()) };
    let checksums = failed.first().map(|row| Unfit::Checksums {
        database: shortened(row.get(0)),
        failures: row.get::<_, i64>(1).max(0).cast_unsigned(),
    });
    Ok(Server {
        version: u32::try_from(row.get::<_, i32>(0)).unwrap_or_default(),
        preloads: libraries(row.get(1)),
        library_path: row.get(2),
        package_libraries: PathBuf::from(row.get::<_, Option<&str>>(3).unwrap_or_default()),
        archive_command: row.get(4),
        archives_nowhere: row.get(5),
        checksums,
    })
}

/// Looks into every database that takes connections. One that goes meanwhile is left out.
pub async fn read(disk: &Disk, session: &Session, server: &Server) -> Result<Catalogs> {
    let question = "select datname::text from pg_database where datallowconn and not datistemplate order by 1";
    let databases = rows(session, "ask the server for its databases", question).await?;
    let mut catalogs = Catalogs::default();
    for database in databases.iter().take(DATABASES).map(|row| row.get::<_, &str>(0)) {
        let looked = async {
            let session = local(database, &disk.core).await?;
            look_into(disk, &session, server, database, &mut catalogs).await
        };
        if let Err(error) = looked.await {
            tracing::debug!(service = %disk.core.service, database, %error, "what a database needs is not known");
        }
    }
    Ok(catalogs)
}

async fn look_into(
    disk: &Disk,
    session: &Session,
    server: &Server,
    database: &str,
    catalogs: &mut Catalogs,
) -> Result<()> {
    for row in rows(session, "ask the server for extensions", EXTENSIONS).await? {
        catalogs.missing.insert(format!("{} {} ({database})", row.get::<_, &str>(0), row.get::<_, &str>(1)));
    }
    let used = rows(session, "ask the server for libraries", LIBRARIES).await?;
    let used: Vec<String> = used.iter().map(|row| row.get(0)).collect();
    let (path, package) = (server.library_path.clone(), server.package_libraries.clone());
    let missing = disk
        .on("the libraries of functions", move |core| {
            let is_here = |name: &String| core.layout.inside.within(|| finds(&path, &package, name)).unwrap_or(true);
            used.into_iter().filter(|name| !is_here(name)).collect::<Vec<_>>()
        })
        .await?;
    catalogs.missing.extend(missing.into_iter().map(|name| format!("{name} ({database})")));
    for row in rows(session, "ask the server for collations", &collations(server.version)).await? {
        let collation = Collation {
            provider: row.get(0),
            locale: row.get(1),
            recorded: row.get(2),
            here: row.get(3),
            database: database.to_owned(),
        };
        let is_new = |known: &Collation| {
            (&known.provider, &known.locale, &known.recorded)
                != (&collation.provider, &collation.locale, &collation.recorded)
        };
        if catalogs.collations.iter().all(is_new) {
            catalogs.collations.push(collation);
        }
    }
    Ok(())
}

/// In which column the locale of a collation or a database stands that is not of libc.
pub fn locale_column(version: u32, of: &str) -> String {
    match (version, of) {
        (..150_000, _) => format!("{of}collate"),
        // It is null for libc there.
        (150_000..170_000, "coll") => "colliculocale".to_owned(),
        (150_000..170_000, _) => "daticulocale".to_owned(),
        _ => format!("{of}locale"),
    }
}

/// The collations that anything of this database uses, and its own.
fn collations(version: u32) -> String {
    let named = |alias: &str, of: &str| match version {
        ..150_000 => format!("{alias}.{of}collate::text"),
        _ => format!("coalesce({alias}.{}::text, {alias}.{of}collate::text)", locale_column(version, of)),
    };
    let (in_use, own) = (named("c", "coll"), named("d", "dat"));
    let of_database = match version {
        ..150_000 => "select 'c', d.datcollate::text, null::text, (select pg_collation_actual_version(c.oid) \
            from pg_collation c where c.collprovider = 'c' and c.collcollate = d.datcollate limit 1) \
            from pg_database d where d.datname = current_database()"
            .to_owned(),
        _ => format!(
            "select d.datlocprovider::text, {own}, d.datcollversion, pg_database_collation_actual_version(d.oid) \
             from pg_database d where d.datname = current_database()"
        ),
    };
    format!(
        "select c.collprovider::text, {in_use}, c.collversion, pg_collation_actual_version(c.oid) from pg_collation c \
         where c.collprovider in ('c', 'i') and pg_collation_actual_version(c.oid) is not null \
         and exists (select from pg_depend d where d.refclassid = 'pg_collation'::regclass and d.refobjid = c.oid) \
         union all {of_database}"
    )
}

impl Catalogs {
    /// Extensions without their files.
    pub fn extensions(&self) -> Option<Unfit> {
        let names = || self.missing.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        (!self.missing.is_empty()).then(|| Unfit::Extensions { names: shortened(&names()) })
    }

    /// Collations of which the primary has another version: what is sorted there is not sorted here. Where both have the same
    /// one, whatever was recorded, an index is as good here as there. Where it has not said, what was recorded counts.
    pub fn collations_that_differ(&self, there: Option<&BTreeMap<(String, String), String>>) -> Option<Unfit> {
        let one = |c: &Collation| {
            let key = (c.provider.clone(), c.locale.clone());
            let (other, whose) = match there.and_then(|there| there.get(&key)) {
                Some(other) => (other, "on the primary"),
                None => (c.recorded.as_ref()?, "recorded"),
            };
            let (here, by) = (c.here.as_ref()?, if c.provider == "i" { "ICU" } else { "libc" });
            let (locale, database) = (&c.locale, &c.database);
            (here != other).then(|| format!("{by} {here}, {other} {whose} ({locale} in {database})"))
        };
        let all: Vec<String> = self.collations.iter().filter_map(one).collect();
        (!all.is_empty()).then(|| Unfit::Collations { which: shortened(&all.join("; ")) })
    }
}

impl Server {
    /// Whether the file of a library is where this server would look for it.
    pub fn finds_library(&self, name: &str) -> bool {
        finds(&self.library_path, &self.package_libraries, name)
    }
}

/// The same of a library as a function or a setting names it.
fn finds(path: &str, package: &Path, name: &str) -> bool {
    let at = |file: PathBuf| {
        let mut with_end = file.clone().into_os_string();
        with_end.push(".so");
        file.is_file() || Path::new(&with_end).is_file()
    };
    let bare = name.strip_prefix("$libdir/").unwrap_or(name);
    if bare.starts_with('/') {
        return at(PathBuf::from(bare));
    }
    let folder = |part: &str| match part.strip_prefix("$libdir") {
        Some(rest) => PathBuf::from(format!("{}{rest}", package.display())),
        None => PathBuf::from(part),
    };
    at(package.join(bare)) || path.split(':').filter(|part| !part.is_empty()).any(|part| at(folder(part).join(bare)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(provider: &str, recorded: Option<&str>, here: Option<&str>) -> Catalogs {
        let text = |text: &str| text.to_owned();
        let collation = Collation {
            provider: text(provider),
            locale: text("de_DE"),
            recorded: recorded.map(text),
            here: here.map(text),
            database: text("app"),
        };
        Catalogs { collations: vec![collation], ..Catalogs::default() }
    }

    #[test]
    fn the_primarys_version_counts_before_the_one_that_was_recorded() {
        let there = |version: &str| BTreeMap::from([(("c".to_owned(), "de_DE".to_owned()), version.to_owned())]);
        let differs = |catalogs: Catalogs, there: Option<&BTreeMap<_, _>>| {
            catalogs.collations_that_differ(there).map(|unfit| unfit.to_string())
        };
        let sorts = |what: &str| Some(format!("collations sort by another version here: {what} (de_DE in app)"));
        assert_eq!(differs(used("c", Some("2.31"), Some("2.36")), Some(&there("2.36"))), None, "both are newer");
        let other = differs(used("c", Some("2.36"), Some("2.36")), Some(&there("2.31")));
        assert_eq!(other, sorts("libc 2.36, 2.31 on the primary"));
        let alone = differs(used("i", Some("153.14"), Some("153.120")), Some(&there("2.31")));
        assert_eq!(alone, sorts("ICU 153.120, 153.14 recorded"), "the primary has none of that name");
        assert_eq!(differs(used("c", Some("2.36"), Some("2.36")), None), None);
        assert_eq!(differs(used("c", None, Some("2.36")), None), None);
        assert_eq!(differs(used("c", Some("1"), None), None), None, "it has no versions");
    }

    #[test]
    fn a_library_is_found_where_the_server_looks_for_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (package, own) = (folder.path().join("lib"), folder.path().join("own"));
        for (place, file) in [(&package, "plain.so"), (&own, "mine.so"), (&own, "odd.bin")] {
            std::fs::create_dir_all(place).expect("made");
            std::fs::write(place.join(file), "").expect("written");
        }
        let path = format!("$libdir:{}", own.display());
        let found = |name: &str| finds(&path, &package, name);
        assert!(
            found("plain") && found("$libdir/plain") && found("plain.so") && found("mine") && found("$libdir/mine")
        );
        assert!(found(&format!("{}/odd.bin", own.display())));
        assert!(!found("other") && !found("/nowhere/plain") && !finds("$libdir", &package, "mine"));
    }

    #[test]
    fn the_columns_of_each_version_are_asked_for() {
        assert_eq!(locale_column(130_016, "coll"), "collcollate");
        assert_eq!(
            (locale_column(150_001, "coll"), locale_column(160_001, "dat")),
            ("colliculocale".into(), "daticulocale".into())
        );
        assert_eq!(
            (locale_column(170_001, "coll"), locale_column(180_001, "dat")),
            ("colllocale".into(), "datlocale".into())
        );
    }
}
